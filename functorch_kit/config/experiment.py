"""From a configuration to functions and data: explicit tables, no imports by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from functorch_kit import checkpoint, data, distributed, train
from functorch_kit.config.beginning import begins_elsewhere, begun, first_weights
from functorch_kit.config.convert import from_dict, to_dict
from functorch_kit.config.errors import ConfigError
from functorch_kit.config.models import MLP, GPTModel, ImageModel, TextModel, ViT
from functorch_kit.config.optimization import make_optimizer, make_options, settings_of, traced
from functorch_kit.config.runs import saved
from functorch_kit.config.schema import Config, choice_of
from functorch_kit.config.together import better
from functorch_kit.config.zoo import zoo_config, zoo_model
from functorch_kit.data import Data
from functorch_kit.types import HParams, Model, Objective

_RULES = {MLP: distributed.MLP, GPTModel: distributed.GPT, ViT: distributed.VIT}
_DATA: dict[str, Callable[..., Data]] = {
    "digits": data.digits,
    "synthetic_images": data.synthetic_images,
    "npz": data.npz,
    "gaussian": data.gaussian,
    "spirals": data.spirals,
    "text": data.text,
    "idx": data.idx,
    "cifar": data.cifar,
    "images": data.images,
    "npy": data.npy,
    "table": data.table,
    "tokens": data.token_bins,
    "sinusoids": data.sinusoids,
    "teacher_student": data.teacher_student,
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a configuration stands for.

    Attributes:
        config: the configuration.
        data: its data.
        model: a function of the hyperparameters that returns the Model.
        objective: likewise.
        optimizer: likewise.
        hparams: the traced settings by dotted name, without those that are off.
        options: what a step does besides descending.
        task: ``"classification"`` of data with classes, ``"regression"`` to real numbers,
            ``"language model"`` of text.
        notes: lines on what the parameters begin with, where ``init_from`` says so.
        sizes: what the model took over from the data: the number of its outputs, say.

    Example:
        >>> from functorch_kit import config
        >>> experiment = config.build(config.Config())
        >>> sorted(experiment.hparams)[:2], experiment.data.name
        (['model.dropout', 'optimizer.b1'], 'digits')
    """

    config: Config
    data: Data
    model: Callable[[HParams], Model]
    objective: Callable[[HParams], Objective]
    optimizer: Callable[[HParams], optax.GradientTransformation]
    hparams: dict[str, float]
    options: train.Options
    task: str
    notes: tuple[str, ...] = ()
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def is_classification(self) -> bool:
        """Whether the data has classes."""
        return self.task == "classification"

    @property
    def judged_by(self) -> str:
        """The metric that the run is told by: accuracy of classes, else the loss."""
        return "accuracy" if self.is_classification else "loss"

    def fit_arguments(self) -> dict[str, Any]:
        """Arguments of ``fk.fit``, all by name.

        Example:
            >>> from functorch_kit import config
            >>> config.build(config.Config()).fit_arguments()["steps"]
            394
        """
        settings, job = self.config.train, self.config
        best = (settings.best, better(settings.best, settings.best_mode))
        stop = None
        if settings.patience is not None:
            stop = train.patience(settings.patience, metric=best[0], mode=best[1])
        return {
            "model": self.model,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "data": self.data,
            "hparams": self.hparams,
            "options": self.options,
            "seed": job.seed,
            "steps": settings.steps,
            "eval_every": settings.eval_every,
            "checkpoint_every": settings.checkpoint_every,
            "log_every": settings.log_every,
            "keep": checkpoint.Keep(settings.keep_latest, settings.keep_best, settings.keep_every),
            "form": settings.form,
            "best": best,
            "stop": stop,
            "max_seconds": settings.max_seconds,
            "nonfinite": settings.nonfinite,
            "max_rollbacks": settings.max_rollbacks,
            "run_dir": job.run_dir,
            "resume": job.resume is not None,
            "overwrite": job.overwrite,
            "quiet": job.quiet,
            "config": saved(job),
            "mesh": make_mesh(job),
            "rules": _rules_of(job.model),
        }

    def fit(self, **changes: Any) -> Any:
        """Train: ``fk.fit`` with these arguments.

        Args:
            **changes: arguments of ``fk.fit`` to give in place of, or beside, those of the
                configuration.

        Returns:
            A FitResult.

        Example:
            >>> from functorch_kit import config
            >>> job = config.Config(model=config.MLP(hidden=(8,)), quiet=True)
            >>> job.train.steps = 5
            >>> config.build(job).fit().summary["steps"]
            5
        """
        from functorch_kit.loop import fit

        return fit(**self.fit_arguments() | changes)


def build(config: Config) -> Experiment:
    """Make the data, and the functions of the hyperparameters that make everything else.

    Args:
        config: checked again, because Python lets anything be assigned.

    Raises:
        ConfigError: a setting that does not fit, alone or to the data.
        DataError: data that cannot be read.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(model=config.MLP(), optimizer=config.SGD(learning_rate=0.1))
        >>> config.build(job).hparams
        {'optimizer.learning_rate': 0.1}
    """
    config = from_dict(to_dict(config), type(config))
    dataset = _DATA[choice_of(config.data)](
        batch_size=config.train.batch_size, seed=config.seed, **settings_of(config, "data", {})
    )
    if not dataset.train.constant():  # it is read while the model trains
        data.first_batch_fits(dataset.train)
    task = _task(dataset)
    _fits(config, dataset, task)
    sizes, chosen = _sizes(dataset, task, config.model), choice_of(config.model)
    first = None
    if begins_elsewhere(config):
        zoo = zoo_config(chosen, sizes | settings_of(config, "model", {}))
        x_spec = dataset.train.spec["x"]
        first = first_weights(str(config.init_from), zoo, zoo_model(zoo), x_spec)

    def model(hparams: HParams) -> Model:
        settings = settings_of(config, "model", hparams)
        made = zoo_model(zoo_config(chosen, sizes | settings))
        if config.train.init_scale != 1:
            made = _scaled(made, settings_of(config, "train", hparams)["init_scale"])
        return begun(made, first) if first else made

    def objective(hparams: HParams) -> Objective:
        if task == "regression":
            return train.regression(model(hparams))
        smoothing = settings_of(config, "train", hparams)["label_smoothing"]
        make = train.classification if task == "classification" else train.language_model
        return make(model(hparams), label_smoothing=smoothing)

    def optimizer(hparams: HParams) -> optax.GradientTransformation:
        return make_optimizer(config, hparams)

    hparams = traced(config)
    options = make_options(config)
    notes = first.notes if first else ()
    return Experiment(
        config, dataset, model, objective, optimizer, hparams, options, task, notes, sizes
    )


def make_mesh(config: Config) -> Any:
    """The mesh of a job; None for one device.

    Raises:
        UserError: sizes that the devices, or the model, do not fit.

    Example:
        >>> from functorch_kit import config
        >>> make_mesh(config.Config()) is None
        True
    """
    sizes = dataclasses.asdict(config.mesh)
    if sizes["data"] is None:
        sizes["data"] = -1 if jax.process_count() > 1 else 1
    if config.mesh.tensor > 1 and _rules_of(config.model) is None:
        raise ConfigError(
            "mesh.tensor splits the matrices of an MLP, a GPT or a ViT, not of"
            f" model={choice_of(config.model)}: give mesh.fsdp in its place, or fk.fit rules of"
            " your own"
        )
    if config.mesh.sequence > 1 and not isinstance(config.model, GPTModel):
        raise ConfigError("mesh.sequence splits a text's context: give mesh.data in its place")
    if all(size == 1 for size in sizes.values()):
        return None
    return distributed.make_mesh(**sizes)


def _rules_of(model: Any) -> distributed.Rules | None:
    """How the matrices of a kind of model are split over an axis of tensors, if that is known."""
    return next((rules for kind, rules in _RULES.items() if isinstance(model, kind)), None)


def _scaled(model: Model, scale: Any) -> Model:
    """The model with its initial weights, which have two axes or more, times a factor."""

    def init(key: Any, x_spec: Any) -> Any:
        params, model_state = model.init(key, x_spec)
        return jax.tree.map(
            lambda leaf: leaf * jnp.asarray(scale, leaf.dtype) if leaf.ndim > 1 else leaf, params
        ), model_state

    return model._replace(init=init)


def _task(dataset: Data) -> str:
    if dataset.vocabulary is not None:
        return "language model"
    return "classification" if dataset.class_names else "regression"


def _sizes(dataset: Data, task: str, model: Any) -> dict[str, int]:
    """What a model takes over from the data."""
    if task == "language model":
        sizes = {"vocabulary": len(dataset.vocabulary)}
        if isinstance(model, GPTModel):
            sizes["context"] = dataset.train.spec["x"].shape[-1]
        return sizes
    targets = dataset.train.spec["y"]
    is_classification = task == "classification"
    return {"outputs": len(dataset.class_names) if is_classification else targets.shape[-1]}


def _fits(config: Config, dataset: Data, task: str) -> None:
    """Settings that depend on the data; a setting that would be ignored is refused."""
    name, chosen = f"data={choice_of(config.data)}", choice_of(config.model)
    x, y = dataset.train.spec["x"], dataset.train.spec["y"]
    shape = x.shape[1:]
    if config.train.patience is not None and dataset.validation is None:
        raise ConfigError(f"train.patience needs a validation part, and {name} has none: give null")
    is_of_text = isinstance(config.model, TextModel)
    if is_of_text != (task == "language model"):
        if is_of_text:
            raise ConfigError(f"model={chosen} needs text, and {name} has none: give data=text")
        raise ConfigError(f"model={chosen} takes numbers, and {name} is text: give model=gpt_nano")
    if task == "language model":
        return
    if not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(f"x in {name} is {x.dtype}: save it as float32, scaled to about 0 to 1")
    if isinstance(config.model, ImageModel) and (len(shape) != 3 or min(shape[:2]) < 2):
        raise ConfigError(
            f"model={chosen} needs images (height, width, channels) from 2×2 up, but a record of"
            f" {name} has shape {shape}: give model=mlp, say"
        )
    if task == "classification":
        return
    if len(y.shape) != 2 or not np.issubdtype(y.dtype, np.floating):
        raise ConfigError(
            f"y in {name} is {y.dtype} of shape (records, *{y.shape[1:]}): save classes as whole"
            " numbers (records,), or targets as float32 (records, outputs)"
        )
    if config.train.label_smoothing:
        raise ConfigError(
            f"train.label_smoothing needs classes, and {name} has none: leave it at 0"
        )
    if config.train.best == "accuracy":
        raise ConfigError(
            f"train.best is 'accuracy', but {name} has no classes: give train.best=loss"
        )
