"""From a state to named host arrays, and from them to a state of exactly the shape asked for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.checkpoint.errors import CheckpointError, cause_line
from functorch_kit.types import PyTree, path_name

Records = dict[str, dict[str, Any]]
"""Leaf path -> ``shape``, ``dtype`` and, for typed PRNG keys, ``key_impl``; JSON values."""

_SHOWN = 3


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _is_number(dtype: np.dtype) -> bool:
    # Orbax meets no text, date, object or long double: half-way through a save is late to refuse.
    return dtype.kind in "biufcV" and dtype.type not in (np.longdouble, np.clongdouble, np.void)


def _named(tree: PyTree) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        if name in named:
            raise CheckpointError(f"two leaves are called {name!r}: rename one")
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            kind = type(leaf).__name__
            raise CheckpointError(
                f"leaf {name!r} is a Python {kind}: make it an array, with a dtype of its own"
            )
        named[name] = leaf
    return named


def to_host(state: PyTree) -> tuple[dict[str, np.ndarray], Records]:
    """Copy every leaf to the host, under its path.

    The copies are real: on CPU a plain ``np.asarray`` is a view that would block the donation of
    the buffer to the next step, or see that step's numbers.

    Args:
        state: a pytree whose leaves are arrays; typed PRNG keys are copied as their key data.

    Returns:
        Path -> array, and path -> record.

    Raises:
        CheckpointError: names a leaf that is no array, has the name of another, was donated, or is
            spread over several processes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> arrays, records = to_host({"dense": (jnp.ones(2), None), "key": jax.random.key(0)})
        >>> arrays["dense/0"].tolist(), arrays["key"].tolist()
        ([1.0, 1.0], [0, 0])
        >>> records["key"]
        {'shape': [], 'dtype': 'key<fry>', 'key_impl': 'threefry2x32'}
    """
    named = _named(state)
    for name, leaf in named.items():
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_addressable:
                raise CheckpointError(
                    f"leaf {name!r} is spread over several processes: gather it before saving"
                )
            if leaf.is_deleted():
                raise CheckpointError(
                    f"leaf {name!r} was donated to a later step: save the state that it returned"
                )
    keys = {name for name, leaf in named.items() if _is_key(leaf.dtype)}
    data = {**named, **{name: jax.random.key_data(named[name]) for name in keys}}
    for leaf in data.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    arrays, records = {}, {}
    for name, leaf in named.items():
        try:
            arrays[name] = np.array(data[name], copy=True, order="C")
        except Exception as error:
            raise CheckpointError(f"leaf {name!r} cannot be copied: {cause_line(error)}") from error
        if not _is_number(arrays[name].dtype):
            raise CheckpointError(f"leaf {name!r} has dtype {leaf.dtype}: save numbers only")
        records[name] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        if name in keys:
            records[name]["key_impl"] = str(jax.random.key_impl(leaf))
    return arrays, records


def host_specs(records: Records) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array as ``to_host`` copied it; keys carry their key data's."""
    specs = {}
    for name, record in records.items():
        shape, dtype = tuple(record["shape"]), record["dtype"]
        if "key_impl" in record:
            key = jax.eval_shape(lambda i=record["key_impl"]: jax.random.key(0, impl=i))
            data = jax.eval_shape(jax.random.key_data, key)
            shape, dtype = shape + data.shape, data.dtype
        specs[name] = (shape, np.dtype(dtype))
    return specs


def _describe(shape: Any, dtype: Any) -> str:
    return f"{dtype}[{','.join(str(n) for n in shape)}]"


def check(records: Records, like: PyTree, folder: str) -> None:
    """Compare every leaf's name, shape and dtype with ``like``.

    Orbax would cast another dtype without a word, so the comparison is ours and comes first.

    Raises:
        CheckpointError: names the leaves, what was expected and what was found.
    """
    wanted = {name: _describe(leaf.shape, leaf.dtype) for name, leaf in _named(like).items()}
    found = {name: _describe(record["shape"], record["dtype"]) for name, record in records.items()}
    faults = [
        f"leaf {name!r} expected {wanted.get(name, 'no such leaf')},"
        f" found {found.get(name, 'no such leaf')}"
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
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


def rebuild(arrays: dict[str, np.ndarray], records: Records, like: PyTree) -> PyTree:
    """Put checked arrays into the structure of ``like``, on the devices that it names.

    A NumPy leaf comes back as NumPy, anything else as a ``jax.Array`` of its own memory, with the
    sharding of ``like`` where that has one.
    """
    leaves = [
        _placed(name, arrays[name], records[name].get("key_impl"), leaf)
        for name, leaf in _named(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
