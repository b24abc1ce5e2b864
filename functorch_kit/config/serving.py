"""A trained model as it is used elsewhere: from a run's folder, or from plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from functorch_kit import precision, train
from functorch_kit.config.convert import from_dict, to_dict
from functorch_kit.config.experiment import build
from functorch_kit.config.language import load_language_model
from functorch_kit.config.models import GPTModel
from functorch_kit.config.optimization import settings_of
from functorch_kit.config.restoring import restore_best
from functorch_kit.config.runs import load_run
from functorch_kit.config.schema import choice_of
from functorch_kit.config.zoo import zoo_config, zoo_model
from functorch_kit.data import Inputs, Vocabulary
from functorch_kit.types import Model, ModelState, Params


@dataclasses.dataclass(frozen=True)
class Servable:
    """What it takes to use a trained model.

    Attributes:
        recipe: plain values that ``servable_model`` makes the model of.
        params: of the best checkpoint.
        model_state: likewise.
        inputs: what a record is, before it is prepared.
        task: see ``Experiment``.
        classes: a name for each; empty for other tasks.
        vocabulary: of a language model; None for others.
        step: of the checkpoint.
    """

    recipe: dict[str, Any]
    params: Params
    model_state: ModelState
    inputs: Inputs
    task: str
    classes: tuple[str, ...]
    vocabulary: Vocabulary | None
    step: int

    @property
    def model(self) -> Model:
        """From raw records to logits, or to the numbers of a regression."""
        return servable_model(self.recipe)


def load_servable(run: str | Path) -> Servable:
    """The best checkpoint of a run, ready to be used on records that nobody has prepared.

    Args:
        run: its folder. Its data must be there, unless it is a language model, because the data
            know their classes and how they are prepared.

    Raises:
        UserError: no such run, one without a checkpoint, or data that cannot be read.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from functorch_kit import config
        >>> job = config.Config(config.MLP((4,)), run_dir=tempfile.mkdtemp(), quiet=True)
        >>> job.train.steps = 2
        >>> _ = config.build(job).fit()
        >>> found = load_servable(job.run_dir)
        >>> x = jnp.zeros((3, *found.inputs.shape))
        >>> found.model.apply(found.params, found.model_state, x)[0].shape, found.task
        ((3, 10), 'classification')
    """
    folder = Path(run)
    job = load_run(folder)
    if isinstance(job.model, GPTModel):
        found = load_language_model(folder)
        context = found.config.context
        sizes = {"vocabulary": found.config.vocabulary, "context": context}
        inputs = Inputs("text", (context,), "int32")
        recipe = recipe_of(job, sizes, inputs)
        _, state = jax.eval_shape(servable_model(recipe).init, jax.random.key(0), inputs.spec)
        return Servable(
            recipe, found.params, state, inputs, "language model", (), found.vocabulary, found.step
        )
    made = build(job)
    hparams = train.as_hparams(made.hparams, made.options.policy.params)
    x = made.data.train.spec["x"]
    best = restore_best(folder, made.model, made.optimizer, x, hparams, made.options)
    kind = "array" if made.data.vocabulary is None else "text"
    inputs = made.data.inputs or Inputs(kind, tuple(x.shape[1:]), str(x.dtype))
    recipe = recipe_of(job, made.sizes, inputs)
    return Servable(
        recipe=recipe,
        params=best.params,
        model_state=best.model_state,
        inputs=inputs,
        task=made.task,
        classes=made.data.class_names,
        vocabulary=made.data.vocabulary,
        step=best.step,
    )


def servable_model(recipe: Mapping[str, Any]) -> Model:
    """The model of a ``Servable``, which prepares raw records itself.

    It computes in the precision that the run was evaluated in, over parameters as they are kept.

    Args:
        recipe: its plain values; they may have been in a file.

    Raises:
        UserError: settings that no model has.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import config
        >>> record = Inputs("table", (2,), "float32", (1.0, 2.0), (1.0, 1.0), ("a", "b"))
        >>> made = servable_model(recipe_of(config.Config(config.MLP(())), {"outputs": 3}, record))
        >>> params, state = made.init(jax.random.key(0), record.spec)
        >>> made.apply(params, state, jnp.array([[1.0, 2.0]]))[0].tolist()
        [[0.0, 0.0, 0.0]]
    """
    job, inside = _job_of(recipe), zoo_model(servable_config(recipe))
    policy = precision.policy(job.train.precision, job.train.precision_keep)
    inputs = Inputs.from_dict(recipe["inputs"])

    def init(key: Any, x_spec: Any) -> tuple[Params, ModelState]:
        return inside.init(key, jax.eval_shape(inputs.prepared, x_spec))

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        whole = policy.cast(params), model_state, inputs.prepared(x)
        return inside.apply(*whole, key=key, train=train)

    return Model(init, apply)


def servable_config(recipe: Mapping[str, Any]) -> Any:
    """The configuration of the zoo that a recipe's model is made of.

    Args:
        recipe: of a ``Servable``.

    Raises:
        UserError: settings that no model has.

    Example:
        >>> from functorch_kit import config
        >>> record = Inputs("array", (2,), "float32")
        >>> recipe = recipe_of(config.Config(config.MLP((5,))), {"outputs": 3}, record)
        >>> servable_config(recipe).hidden
        (5,)
    """
    job = _job_of(recipe)
    return zoo_config(choice_of(job.model), recipe["sizes"] | settings_of(job, "model", {}))


def _job_of(recipe: Mapping[str, Any]) -> Any:
    given = recipe["precision"]
    settings = {"precision": given["name"], "precision_keep": given["keep"]}
    return from_dict({"model": recipe["model"], "train": settings})


def recipe_of(job: Any, sizes: Mapping[str, int], inputs: Inputs) -> dict[str, Any]:
    """Plain values that ``servable_model`` makes the model of.

    Args:
        job: a checked configuration; of it, the model and the precision.
        sizes: what the model takes over from the data, see ``Experiment``.
        inputs: what a record is.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(config.MLP(()))
        >>> sorted(recipe_of(job, {"outputs": 3}, Inputs("array", (2,), "float32")))
        ['inputs', 'model', 'precision', 'sizes']
    """
    kept = {"name": job.train.precision, "keep": list(job.train.precision_keep)}
    model = to_dict(job)["model"]
    return {"model": model, "sizes": dict(sizes), "precision": kept, "inputs": inputs.to_dict()}
