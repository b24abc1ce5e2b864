"""The shapes that every room shares: a model, what an objective returns, and names for pytrees."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey
from jaxtyping import Array, Float, Integer

PyTree = Any
"""Any nesting of dicts, tuples, lists and registered dataclasses with arrays as leaves."""
Params = PyTree
"""What the optimizer trains: nested dicts, addressed like ``blocks/3/attention/query/kernel``."""
ModelState = PyTree
"""What passes from call to call untrained: BatchNorm statistics, a carry; ``()`` if nothing."""
Batch = dict[str, Any]
"""Named arrays with the example axis first: ``x``, ``y``; ``weight`` (B,), 0 for padding."""
Key = jax.Array
"""A typed PRNG key from ``jax.random.key``."""
Spec = PyTree
"""A pytree of ``jax.ShapeDtypeStruct`` (or of arrays, of which only shape and dtype are read)."""
HParams = dict[str, Any]
"""Hyperparameters: a dict of scalar arrays, traced like any other argument of a step."""


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
        init: ``init(key, x_spec) -> (params, model_state)``; ``x_spec`` is the shape of a batch.
        apply: ``apply(params, model_state, x, *, key=None, train=False) -> (y, model_state)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> double = Model(
        ...     init=lambda key, x_spec: ({}, ()),
        ...     apply=lambda params, state, x, *, key=None, train=False: (2 * x, state))
        >>> y, _ = double.apply({}, (), jnp.ones(3))
        >>> y.tolist()
        [2.0, 2.0, 2.0]
    """

    init: Callable[..., tuple[Params, ModelState]]
    apply: Callable[..., tuple[Any, ModelState]]


class Outcome(NamedTuple):
    """What an objective says of one batch: a weighted sum and its weight, never a mean.

    Sums add over micro-batches, devices and ragged last batches; means do not.

    Attributes:
        loss_sum: sum over the examples of weight times loss, shape ``()``.
        weight: sum of the weights, shape ``()``.
        model_state: the model's state after the call.
        metrics: name -> summable pytree with a ``compute()`` (see ``functorch_kit.metrics``).
    """

    loss_sum: Float[Array, ""]
    weight: Float[Array, ""]
    model_state: ModelState
    metrics: dict[str, Any]


Objective = Callable[..., Outcome]
"""``objective(params, model_state, batch, *, key, train) -> Outcome``."""


def path_name(path: tuple[Any, ...]) -> str:
    """Write a pytree key path the way this toolkit addresses leaves, with slashes.

    Example:
        >>> import jax
        >>> tree = {"head": {"kernel": 1, "bias": (2, 3)}}
        >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        ['head/bias/0', 'head/bias/1', 'head/kernel']
    """
    return "/".join(_entry_name(entry) for entry in path)


def _entry_name(entry: Any) -> str:
    match entry:
        case DictKey(key=key) | FlattenedIndexKey(key=key):
            return str(key)
        case SequenceKey(idx=index):
            return str(index)
        case GetAttrKey(name=name):
            return name
        case _:
            return str(entry)


def path_matches(pattern: str, path: str) -> bool:
    """Whether a pattern names a path, or something above it.

    Between slashes, ``*`` stands for any part of one name; ``**`` stands for any number of names.

    Args:
        pattern: such as ``blocks/*/attention``, ``**/bias`` or ``head``.
        path: as ``path_name`` writes it.

    Example:
        >>> path_matches("blocks/*/attention", "blocks/3/attention/query/kernel")
        True
        >>> path_matches("**/bias", "head/bias"), path_matches("blocks", "blocks_of_stone/kernel")
        (True, False)
    """
    return _regex(pattern).match(f"{path}/") is not None


@functools.lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    # Every name ends in a slash, the path's too, so that a whole name is matched or none.
    return re.compile(
        "".join(
            "(?:[^/]+/)*" if name == "**" else "[^/]*".join(map(re.escape, name.split("*"))) + "/"
            for name in pattern.strip("/").split("/")
        )
    )


def wide(integers: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
    """Labels and tokens in at least 32 bits: compared in uint8, class 256 would wrap around to 0.

    Example:
        >>> import jax.numpy as jnp
        >>> wide(jnp.array([255], jnp.uint8)).dtype
        dtype('int32')
    """
    return integers.astype(jnp.int32) if integers.dtype.itemsize < 4 else integers


def wide_float(x: Array) -> Array:
    """Floats in at least 32 bits: sums, moments and exponentials in fewer lose what they add.

    Example:
        >>> wide_float(jnp.zeros(2, jnp.bfloat16)).dtype, wide_float(jnp.zeros(2)).dtype
        (dtype('float32'), dtype('float32'))
    """
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def spec_of(tree: PyTree) -> Spec:
    """Shapes and dtypes of a pytree of arrays, as ``jax.ShapeDtypeStruct``s; specs stay.

    Example:
        >>> import numpy as np
        >>> spec_of({"x": np.zeros((2, 3), np.float32)})["x"].shape
        (2, 3)
    """

    def spec(leaf: Any) -> jax.ShapeDtypeStruct:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(spec, tree)
