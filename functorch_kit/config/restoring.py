"""The best checkpoint of a run, as whoever uses the trained model needs it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from functorch_kit import checkpoint, train
from functorch_kit.config.errors import ConfigError
from functorch_kit.types import HParams, ModelState, Params, Spec


@dataclasses.dataclass(frozen=True)
class Best:
    """What the best checkpoint holds.

    Attributes:
        params: those that the run evaluates, an average where it keeps one.
        model_state: the model's.
        step: of the checkpoint.
        steps: that the run has taken.
    """

    params: Params
    model_state: ModelState
    step: int
    steps: int


def restore_best(
    run: str | Path,
    model: Any,
    optimizer: Any,
    x_spec: Spec,
    hparams: HParams,
    options: train.Options,
) -> Best:
    """Read the best checkpoint of a run; the newest where none is known to be better.

    Args:
        run: its folder.
        model: that it trained, or a function of the hyperparameters that returns it.
        optimizer: likewise.
        x_spec: shape and dtype of a batch.
        hparams: the hyperparameters, by name.
        options: those of its train step.

    Raises:
        ConfigError: it has no checkpoint.
        CheckpointError: a damaged one, or one of another model.

    Example:
        >>> import tempfile
        >>> from functorch_kit import config
        >>> job = config.Config(config.MLP((4,)), run_dir=tempfile.mkdtemp(), quiet=True)
        >>> job.train.steps = 2
        >>> made = config.build(job)
        >>> _ = made.fit()
        >>> best = restore_best(job.run_dir, made.model, made.optimizer, made.data.train.spec["x"],
        ...                     train.as_hparams(made.hparams), made.options)
        >>> best.params["head"]["kernel"].shape, best.steps
        ((4, 10), 2)
    """
    init = train.make_init(model, optimizer, x_spec, options)
    with checkpoint.Store(Path(run) / "checkpoints") as store:
        steps = store.latest()
        if steps is None:
            raise ConfigError(f"run folder {str(run)!r} has no checkpoint: train it first")
        step = store.best() or steps
        state, _ = store.restore(step, jax.eval_shape(init, hparams, jax.random.key(0)))
    # Compiled, as the run does it: an average is the same to the bit.
    params = jax.jit(lambda state: train.evaluation_params(state, options))(state)
    return Best(params, state.model_state, step, steps)
