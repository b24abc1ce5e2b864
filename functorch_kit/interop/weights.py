"""Parameters from a file, whichever library has written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from functorch_kit import models
from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.hugging_face import hugging_face
from functorch_kit.interop.stored import read_tensors
from functorch_kit.interop.table import Entry, Found, Table, named_leaves
from functorch_kit.interop.torchvision import torchvision
from functorch_kit.types import ModelState, Params

_HEADS = (
    "params/head",
    "params/classifier/head",
    "params/auxiliary_0/head",
    "params/auxiliary_1/head",
)


def own_table(config: Any, params: Params, model_state: ModelState) -> Table:
    """The table of our own names, such as ``params/head/kernel`` or ``head/kernel``.

    Args:
        config: of the model; None for one that is not of the zoo.
        params: its parameters, or their shapes.
        model_state: its state, or its shapes.

    Example:
        >>> import numpy as np
        >>> table = own_table(None, {"head": {"bias": np.zeros(2)}}, ())
        >>> list(table.write({"head": {"bias": np.zeros(2)}}, ()))
        ['params/head/bias']
    """
    paths = named_leaves(params, model_state)
    # Where positions of an image are cut off, others than the last would be missed.
    is_text = isinstance(config, models.GPTConfig)
    return Table(
        "this model",
        tuple(Entry(path, (path,)) for path in paths),
        prefix="params/",
        heads=() if is_text else _HEADS,
        cut=("params/position/embedding",) if is_text else (),
    )


def tables(config: Any) -> tuple[Table, ...]:
    """The tables of other libraries for a model of the zoo; none for one that they do not have.

    Args:
        config: of the model.

    Example:
        >>> from functorch_kit import models
        >>> [table.name for table in tables(models.ResNetConfig(depth=50))]
        ['torchvision resnet50', 'Hugging Face ResNet']
    """
    found: list[Table] = []
    for make in (torchvision, hugging_face):
        try:
            found.append(make(config))
        except InteropError:
            continue
    return tuple(found)


def read_weights(path: str | Path, config: Any, params: Params, model_state: ModelState) -> Found:
    """What a file of weights has for a model of the zoo.

    The file may be torchvision's, Hugging Face's or our own: its names tell.

    Args:
        path: a file or a folder, see ``read_tensors``.
        config: of the model; None for one that is not of the zoo, and a file of our own names.
        params: its parameters, of which only shapes and dtypes are read.
        model_state: likewise.

    Returns:
        What was found; ``Found.into`` puts it in place.

    Raises:
        InteropError: the file cannot be read, or is not of this model.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> config = models.MLPConfig(hidden=(), outputs=2)
        >>> model = models.mlp(config)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> path = Path(tempfile.mkdtemp()) / "params.safetensors"
        >>> own_table(config, params, state).save(path, params, state)
        >>> read_weights(path, config, params, state).arrays["params/head/kernel"].shape
        (3, 2)
    """
    tensors = read_tensors(path)
    known = (*tables(config), own_table(config, params, model_state))
    nearest = min(known, key=lambda table: table.missing_from(tensors))
    try:
        return nearest.read(tensors, params, model_state)
    except InteropError as error:
        raise InteropError(f"{str(path)!r} does not fit: {error}") from error


def load(
    path: str | Path, config: Any, params: Params, model_state: ModelState
) -> tuple[Params, ModelState]:
    """A model's parameters and state with the weights of a file, all of which have to fit.

    Args:
        path: a file or a folder, see ``read_tensors``.
        config: of the model, see ``read_weights``.
        params: as ``Model.init`` has made them, or their shapes.
        model_state: likewise.

    Returns:
        Parameters and state, of NumPy's arrays.

    Raises:
        InteropError: the file cannot be read, is not of this model, or has another number of
            classes.

    Example:
        >>> import tempfile, numpy as np
        >>> path, params = Path(tempfile.mkdtemp()) / "params.safetensors", {"bias": np.ones(2)}
        >>> own_table(None, params, ()).save(path, params, ())
        >>> load(path, None, {"bias": np.zeros(2)}, ())[0]["bias"].tolist()
        [1.0, 1.0]
    """
    found = read_weights(path, config, params, model_state)
    if missing := named_leaves(params, model_state).keys() - found.arrays.keys():
        notes = "; ".join(found.notes)
        first = sorted(missing)[0].removeprefix("params/")
        raise InteropError(f"{str(path)!r} does not fit: {first!r} is not there ({notes})")
    return found.into(params, model_state)
