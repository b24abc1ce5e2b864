"""A matrix that is a sum over batches: each linearised once, kept while the memory lasts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import Batch, Params, PyTree, path_name, spec_of

Functions = tuple[Callable[..., Any], ...]


class Rule(NamedTuple):
    """How one kind of matrix multiplies.

    Compiled programs are kept by the rule and the user's functions, so an operator at other
    parameters, or over other batches of the same shape, compiles nothing.

    Attributes:
        at: ``at(functions, params, batch, key) -> point``: all of the work that does not depend on
            the vector.
        times: ``times(functions, point, v) -> product``, summed over the batch's examples.
    """

    at: Callable[..., PyTree]
    times: Callable[..., PyTree]


def weights(batch: Batch, count: int, dtype: Any) -> Float[Array, " count"]:
    """The batch's own weights, or ones.

    Example:
        >>> weights({"weight": jnp.array([1.0, 0.0])}, 2, jnp.float32).tolist()
        [1.0, 0.0]
    """
    if isinstance(batch, Mapping) and "weight" in batch:
        return jnp.asarray(batch["weight"]).astype(dtype)
    return jnp.ones(count, dtype)


def checked_losses(losses: Array, batch: Batch) -> Float[Array, " count"]:
    """What the user's ``losses`` returned, if it is a vector as long as the batch.

    Raises:
        TransformError: it is none.

    Example:
        >>> checked_losses(jnp.ones(2), {"x": jnp.zeros((2, 3))}).shape
        (2,)
    """
    count = _count(batch)
    if jnp.shape(losses) != (count,):
        raise TransformError(
            f"losses returns shape {jnp.shape(losses)} for a batch of {count}:"
            f" give one loss for each example, ({count},), without a mean"
        )
    return losses


def sum_over(
    rule: Rule,
    functions: Functions,
    params: Params,
    data: Batch | Iterable[Batch],
    *,
    reduction: str,
    stacked: bool,
    memory: int,
    key: Any = None,
) -> Operator:
    """The operator that adds up a rule's products over batches.

    Args:
        rule: how a batch's matrix multiplies.
        functions: the user's, which the rule calls.
        params: where it is linearised.
        data: see ``hessian``.
        reduction: ``"mean"`` over the examples, by their weights, or ``"sum"``.
        stacked: see ``hessian``.
        memory: see ``hessian``.
        key: a vector of keys, of what the rule draws; each batch gets its own.

    Returns:
        The operator.

    Raises:
        TransformError: data that cannot be read again, no batches, batches of several shapes, or
            a total weight of 0.

    Example:
        >>> half = Rule(at=lambda fs, params, batch, key: batch["x"].sum(),
        ...             times=lambda fs, point, v: point * v)
        >>> batch = {"x": jnp.array([1.0, 3.0])}
        >>> operator = sum_over(half, (), jnp.zeros(()), [batch, batch], reduction="mean",
        ...                     stacked=False, memory=0)
        >>> operator(jnp.ones(())).item()  # (1 + 3 + 1 + 3) / 4 examples
        2.0
    """
    if reduction not in ("mean", "sum"):
        raise TransformError(f"reduction {reduction!r} is not 'mean' or 'sum'")
    if stacked:
        _check_stacked(data)
        total = _weight_of_stack(data)
        scale = _scale(reduction, total, params)
        return Operator(
            lambda v: _stacked(rule, functions, params, data, key, v, scale), spec_of(params)
        )
    batches = readable(data)
    points: dict[int, PyTree] = {}
    total, left, size = 0.0, memory, 0
    for index, batch in enumerate(batches):
        total += _weight(batch)
        if index == 0:
            shapes = jax.eval_shape(
                functools.partial(rule.at, functions), params, batch, _fold(key, index)
            )
            size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        if size <= left:
            points[index] = _at(rule, functions, params, batch, _fold(key, index))
            left -= size
    scale = _scale(reduction, total, params)

    def product(v: PyTree) -> PyTree:
        found = None
        # Where every batch is kept, the data is not read again.
        whole = batches if len(points) < batches.count else [None] * batches.count
        for index, batch in enumerate(whole):
            if index in points:
                part = _times(rule, functions, points[index], v, scale)
            else:
                part = _at_and_times(rule, functions, params, batch, _fold(key, index), v, scale)
            found = part if found is None else _add(found, part)
        return found

    return Operator(product, spec_of(params))


def readable(data: Batch | Iterable[Batch]) -> Batches:
    """The data as something that can be read again and again, its batches all of one shape.

    Raises:
        TransformError: it can be read once only.

    Example:
        >>> [batch["x"].shape for batch in readable({"x": jnp.zeros(3)})]
        [(3,)]
    """
    if isinstance(data, Iterator):
        raise TransformError(
            f"data is a {type(data).__name__}, which can be read once only:"
            " give a list, or an object whose __iter__ starts anew"
        )
    batches: Any = [data] if isinstance(data, Mapping) else data
    return Batches(batches)


@dataclasses.dataclass
class Batches:
    """Batches of one shape; ``count`` is how many there were when they were last read.

    Iterating raises TransformError where there are none, or one differs from the first.
    """

    data: Iterable[Batch]
    count: int = 0

    def __iter__(self) -> Iterator[Batch]:
        first, count = None, 0
        for count, batch in enumerate(self.data, 1):
            spec = spec_of(batch)
            if first is None:
                first = spec
            elif spec != first:
                raise TransformError(
                    f"batch {count - 1} differs from batch 0 in {_difference(first, spec)}:"
                    " pad it, with weight 0, or leave it out"
                )
            yield batch
        if count == 0:
            raise TransformError("data has no batches: give one at least")
        self.count = count


def _difference(first: PyTree, other: PyTree) -> str:
    ours = dict(jax.tree_util.tree_leaves_with_path(first))
    for path, leaf in jax.tree_util.tree_leaves_with_path(other):
        if ours.get(path) != leaf:
            return f"{path_name(path)} ({leaf.dtype}{list(leaf.shape)})"
    return "its entries"


def _count(batch: Batch) -> int:
    return jnp.shape(jax.tree.leaves(batch)[0])[0]


def _weight(batch: Batch) -> Any:
    return _total(batch["weight"]) if _weighted(batch) else _count(batch)


def _total(weight: Any) -> Any:
    """The sum; of numbers that are known, on the host in float64."""
    return jnp.sum(weight) if isinstance(weight, Tracer) else float(np.sum(weight, dtype=float))


def _weighted(batch: Any) -> bool:
    return isinstance(batch, Mapping) and "weight" in batch


def _check_stacked(data: Any) -> None:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if not isinstance(data, Mapping) or len(lengths) != 1 or lengths & {(), (0,)}:
        raise TransformError(
            "stacked data is a dict of arrays (batches, batch, ...), as many batches in each;"
            f" these begin with {sorted(lengths)}"
        )


def _weight_of_stack(data: Any) -> Any:
    if _weighted(data):
        return _total(data["weight"])
    shape = jnp.shape(jax.tree.leaves(data)[0])
    return shape[0] * shape[1]


def _scale(reduction: str, total: Any, params: Params) -> Any:
    if not isinstance(total, Tracer) and not total > 0:
        raise TransformError(f"the weights add up to {float(total):g}: give some above 0")
    return 1.0 if reduction == "sum" else 1.0 / total


def _fold(key: Any, index: Any) -> Any:
    return None if key is None else jax.vmap(jax.random.fold_in, (0, None))(key, index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _at(rule, functions, params, batch, key):
    return rule.at(functions, params, batch, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _times(rule, functions, point, v, scale):
    return _scaled(rule.times(functions, point, v), scale)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _at_and_times(rule, functions, params, batch, key, v, scale):
    return _scaled(rule.times(functions, rule.at(functions, params, batch, key), v), scale)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _stacked(rule, functions, params, data, key, v, scale):
    def step(total, numbered):
        index, batch = numbered
        point = rule.at(functions, params, batch, _fold(key, index))
        return jax.tree.map(jnp.add, total, rule.times(functions, point, v)), None

    count = jnp.shape(jax.tree.leaves(data)[0])[0]
    zeros = jax.tree.map(jnp.zeros_like, v)
    return _scaled(lax.scan(step, zeros, (jnp.arange(count), data))[0], scale)


@functools.partial(jax.jit, donate_argnums=0)
def _add(total, part):
    return jax.tree.map(jnp.add, total, part)


def _scaled(tree, scale):
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(scale).astype(leaf.dtype), tree)
