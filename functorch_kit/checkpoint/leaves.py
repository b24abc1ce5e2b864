"""What leaves are called, what is recorded of each, and a state of exactly the shape asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.checkpoint.errors import CheckpointError
from functorch_kit.types import PyTree, path_name

Records = dict[str, dict[str, Any]]
"""Leaf path -> ``shape``, ``dtype``, for typed PRNG keys ``key_impl``, in the packed file
``offset``; JSON values."""

Specs = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Leaf path -> shape and dtype."""

_SHOWN = 3


@functools.cache
def is_key(dtype: Any) -> bool:
    """Whether it is the dtype of typed PRNG keys."""
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


@functools.cache
def is_number(dtype: np.dtype) -> bool:
    """Whether arrays of it are plain numbers of a fixed width."""
    # Half-way through a save is late to refuse text, dates, objects and long doubles.
    return dtype.kind in "biufcV" and dtype.type not in (np.longdouble, np.clongdouble, np.void)


@functools.cache
def dtype_name(dtype: Any) -> str:
    """As NumPy and JAX write it, such as ``float32``, ``>f4`` or ``key<fry>``."""
    return str(dtype)


def named(tree: PyTree) -> dict[str, Any]:
    """Leaf path -> leaf.

    Raises:
        CheckpointError: names a leaf that is no array, or has the name of another.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        if name in found:
            raise CheckpointError(f"two leaves are called {name!r}: rename one")
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            kind = type(leaf).__name__
            raise CheckpointError(
                f"leaf {name!r} is a Python {kind}: make it an array, with a dtype of its own"
            )
        found[name] = leaf
    return found


def host_specs(records: Records) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array as ``take`` copied it; keys carry their key data's."""
    specs = {}
    for name, record in records.items():
        shape, dtype = tuple(record["shape"]), record["dtype"]
        if "key_impl" in record:
            key = jax.eval_shape(lambda i=record["key_impl"]: jax.random.key(0, impl=i))
            data = jax.eval_shape(jax.random.key_data, key)
            shape, dtype = shape + data.shape, data.dtype
        specs[name] = (shape, np.dtype(dtype))
        if min(shape, default=0) < 0 or not is_number(specs[name][1]):
            raise CheckpointError(
                f"leaf {name!r} is said to be {_describe(shape, dtype)}: no array"
            )
    return specs


def _describe(shape: Any, dtype: Any) -> str:
    return f"{dtype}[{','.join(str(n) for n in shape)}]"


def differences(records: Records, like: PyTree) -> dict[str, tuple[str, str]]:
    """Leaf path -> what is expected and what was found, for each leaf where they are not the same.

    Orbax would cast another dtype without a word, so the comparison is ours and comes first.
    """
    wanted = {name: _describe(leaf.shape, leaf.dtype) for name, leaf in named(like).items()}
    found = {name: _describe(record["shape"], record["dtype"]) for name, record in records.items()}
    none = "no such leaf"
    return {
        name: (wanted.get(name, none), found.get(name, none))
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    }


def check(records: Records, like: PyTree, folder: str) -> None:
    """Compare every leaf's name, shape and dtype with ``like``.

    Raises:
        CheckpointError: names the leaves, what was expected and what was found.
    """
    faults = [
        f"leaf {name!r} expected {wanted}, found {found}"
        for name, (wanted, found) in differences(records, like).items()
    ]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CheckpointError(
            f"{folder} does not fit: {'; '.join(faults[:_SHOWN])}{more}:"
            " restore it into the model and optimizer that saved it"
        )


def _placed(name: str, value: np.ndarray, key_impl: str | None, like: Any) -> Any:
    if isinstance(like, (np.ndarray, np.generic)):
        return value
    sharding = getattr(like, "sharding", None)
    if isinstance(like, jax.Array) and not like.committed:
        sharding = None
    if sharding is not None and not sharding.is_fully_addressable:
        return _shared_out(value, key_impl, sharding)
    where = None if key_impl else sharding
    # On CPU an aligned NumPy array is aliased (may_alias says nothing there), and XLA cannot reuse
    # memory that is not its own: the first step would hold the state twice. Hence a second put.
    placed = jax.device_put(jax.device_put(value, where), where, may_alias=False)
    if placed.dtype != value.dtype:
        raise CheckpointError(
            f"leaf {name!r} expected {value.dtype}, this process gives {placed.dtype}:"
            " set jax_enable_x64"
        )
    if key_impl is None:
        return placed
    key = jax.random.wrap_key_data(placed, impl=key_impl)
    return key if sharding is None else jax.device_put(key, sharding)


def _shared_out(value: np.ndarray, key_impl: str | None, sharding: Any) -> Any:
    """An array of several processes, each of which has read the whole and keeps its part."""
    made = jax.make_array_from_callback(value.shape, sharding, lambda index: value[index].copy())
    return made if key_impl is None else jax.random.wrap_key_data(made, impl=key_impl)


def rebuild(arrays: Mapping[str, np.ndarray], records: Records, like: PyTree) -> PyTree:
    """Put checked arrays into the structure of ``like``, on the devices that it names.

    A NumPy leaf comes back as NumPy, anything else as a ``jax.Array`` of its own memory, with the
    sharding of ``like`` where that has one. A leaf without an array stays as it is in ``like``.
    """
    leaves = [
        _placed(name, arrays[name], records[name].get("key_impl"), leaf) if name in arrays else leaf
        for name, leaf in named(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
