"""What a job begins with where ``init_from`` says so: weights of a file, or of another run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import checkpoint, interop
from functorch_kit.config.errors import ConfigError
from functorch_kit.config.optimization import make_options
from functorch_kit.config.runs import load_run
from functorch_kit.config.schema import Config
from functorch_kit.types import Model, Spec


def begins_elsewhere(config: Config) -> bool:
    """Whether weights of ``init_from`` are needed: a run that has a checkpoint goes on from that.

    Example:
        >>> begins_elsewhere(Config()), begins_elsewhere(Config(init_from="resnet18.pth"))
        (False, True)
    """
    if config.init_from is None:
        return False
    run = config.resume or (None if config.overwrite else config.run_dir)
    return run is None or not checkpoint.Store(Path(run) / "checkpoints").steps()


def first_weights(path: str, zoo: Any, model: Model, x_spec: Spec) -> interop.Found:
    """The weights that a model begins with.

    Args:
        path: a file of weights, a folder with one, or the folder of a run.
        zoo: configuration of the model.
        model: the model.
        x_spec: shape and dtype of a batch of its inputs.

    Returns:
        Arrays by path; its notes say how many there are, and what is new all the same.

    Raises:
        UserError: they cannot be read, or are not of this model.

    Example:
        >>> from functorch_kit import models
        >>> config = models.MLPConfig()
        >>> first_weights("no-such-file", config, models.mlp(config), jax.ShapeDtypeStruct((1, 2),
        ...               "float32"))
        Traceback (most recent call last):
        functorch_kit...InteropError: 'no-such-file' does not exist: give a file of weights, or its
        folder
    """
    params, model_state = jax.eval_shape(lambda: model.init(jax.random.key(0), x_spec))
    if (Path(path) / "checkpoints").is_dir():
        table = interop.own_table(zoo, params, model_state)
        try:
            found = table.read(_of_run(path), params, model_state)
        except interop.InteropError as error:
            raise ConfigError(f"init_from={path!r} does not fit: {error}") from error
    else:
        found = _from_file(path, _stamp(path), zoo, _Specs((params, model_state)))
    return found._replace(notes=(f"{len(found.arrays)} arrays from {path!r}", *found.notes))


def begun(model: Model, found: interop.Found) -> Model:
    """The model, whose first parameters and state are those that were found.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> found = interop.Found({"params/bias": np.ones(2, np.float32)}, ())
        >>> params, _ = begun(nn.dense(2), found).init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params["bias"].tolist()
        [1.0, 1.0]
    """

    def init(key: Any, x_spec: Any) -> Any:
        return found.into(*model.init(key, x_spec))

    return model._replace(init=init)


class _Specs:
    """Shapes and dtypes, equal where they are the same."""

    def __init__(self, tree: Any):
        self.tree = tree
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        self._key = str([(path, leaf.shape, leaf.dtype) for path, leaf in leaves])

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Specs) and self._key == other._key


def _stamp(path: str) -> int:
    """When a file was last written: what was read of it before may be used again."""
    return Path(path).stat().st_mtime_ns if Path(path).exists() else 0


@functools.lru_cache(maxsize=1)  # the jobs of a sweep begin with the same arrays
def _from_file(path: str, stamp: int, zoo: Any, specs: _Specs) -> interop.Found:
    return interop.read_weights(path, zoo, *specs.tree)


def _of_run(path: str) -> Mapping[str, np.ndarray]:
    """The parameters and state that a run is judged by, at its best step."""
    options = make_options(load_run(path))
    with checkpoint.Store(Path(path) / "checkpoints") as store:
        step = store.best() or store.latest()
        if step is None:
            raise ConfigError(f"run folder {path!r} has no checkpoint: train it first")
        held = checkpoint.read(store.folder / str(step))
    if callable(options.evaluate):
        raise ConfigError(
            f"init_from={path!r}: the run evaluates an average that its optimizer keeps, and only"
            " that knows: begin with a run of another optimizer"
        )
    found = {name: held[name] for name in held if name.startswith(("params/", "model_state/"))}
    if options.evaluate == "ema":
        weight = held["ema/weight"]
        for name in (name for name in held if name.startswith("ema/total/")):
            total = held[name]
            found[f"params/{name.removeprefix('ema/total/')}"] = total / weight.astype(total.dtype)
    return found
