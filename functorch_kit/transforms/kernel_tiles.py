"""Tiles of an empirical neural tangent kernel: the compiled pieces that ``ntk`` is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from functorch_kit.nn.conv import examples_at_once
from functorch_kit.transforms.linearise import both_ways, linearised
from functorch_kit.types import Params, PyTree


class Function(NamedTuple):
    """What the kernel is of.

    Attributes:
        f: ``f(params, x) -> (examples, ...)``.
        is_separable: whether each example's output depends on that example alone.
    """

    f: Callable[..., Array]
    is_separable: bool

    def flat(self, params: Params, x: PyTree) -> Array:
        """Outputs (examples, outputs)."""
        y = self.f(params, x)
        return y.reshape(y.shape[0], -1)

    def alone(self, params: Params, example: PyTree) -> Array:
        """Outputs of one example (outputs,)."""
        return jnp.ravel(self.f(params, jax.tree.map(lambda leaf: leaf[None], example)))

    def outputs(self, params: Params, x: PyTree) -> int:
        """How many there are for each example."""
        return jax.eval_shape(self.flat, params, x).shape[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def jacobian(function: Function, count: int, params: Params, x: PyTree, start: Any) -> list[Array]:
    """Jacobians of ``count`` examples from ``start`` on: (count, outputs, size) for each leaf.

    Example:
        >>> square = Function(lambda w, x: (x * w) ** 2, True)
        >>> (found,) = jacobian(square, 1, jnp.ones(()), jnp.array([[1.0], [3.0]]), 1)
        >>> found.tolist()
        [[[18.0]]]
    """
    if function.is_separable:

        def of_one(example: PyTree) -> PyTree:
            y, pull = jax.vjp(lambda params: function.alone(params, example), params)
            return jax.vmap(pull)(jnp.eye(y.shape[0], dtype=y.dtype))[0]

        with examples_at_once(count * function.outputs(params, x)):
            found = jax.vmap(of_one)(rows_of(x, start, count))
    else:
        y, pull = jax.vjp(lambda params: function.flat(params, x), params)
        size = y.shape[1]

        def of_output(index: Array) -> PyTree:
            return pull(_one_hot(y, index))[0]

        indices = start * size + jnp.arange(count * size)
        found = jax.vmap(of_output)(indices)
        found = jax.tree.map(lambda leaf: leaf.reshape(count, size, *leaf.shape[1:]), found)
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(found)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def columns(
    function: Function,
    is_full: bool,
    count_1: int,
    count_2: int,
    params: Params,
    x1: PyTree,
    start_1: Any,
    x2: PyTree,
    start_2: Any,
) -> Array:
    """Columns of the kernel, each a product of it with a one-hot vector: one vjp and one jvp.

    Args:
        function: what the kernel is of.
        is_full: whether all outputs of a row are kept, or the one that the column is of.
        count_1: examples of ``x1``; all of them if the function is not separable.
        count_2: columns; each is an output of an example of ``x2``.
        params: of the function.
        x1: the rows' examples.
        start_1: the first of them.
        x2: the columns' examples.
        start_2: the first column.

    Returns:
        (rows, outputs, columns), or (rows, columns).

    Example:
        >>> square = Function(lambda w, x: (x * w) ** 2, True)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> columns(square, False, 2, 1, jnp.ones(()), x, 0, x, 1).tolist()
        [[36.0], [324.0]]
    """
    rows = rows_of(x1, start_1, count_1) if function.is_separable else x1
    z, linear = linearised(lambda params: function.flat(params, rows), params)
    push, _ = both_ways(z, linear, params)

    def of_all(params: Params) -> Array:
        return function.flat(params, x2)

    size = z.shape[1]
    y, pull_all = (z, None) if function.is_separable else jax.vjp(of_all, params)

    def column(index: Array) -> Array:
        output = index % size
        if pull_all is None:
            example = jax.tree.map(lambda leaf: leaf[index // size], x2)
            y_one, pull = jax.vjp(lambda params: function.alone(params, example), params)
            (g,) = pull(_one_hot(y_one, output))
        else:
            (g,) = pull_all(_one_hot(y, index))
        found = push(g)
        return found if is_full else lax.dynamic_index_in_dim(found, output, 1, keepdims=False)

    with examples_at_once(count_2 if function.is_separable else 1):
        found = jax.vmap(column, out_axes=-1)(start_2 + jnp.arange(count_2))
    return found if function.is_separable else lax.dynamic_slice_in_dim(found, start_1, count_1)


def rows_of(x: PyTree, start: Any, count: int) -> PyTree:
    """Examples ``start`` … ``start + count - 1``.

    Example:
        >>> rows_of(jnp.arange(4), 1, 2).tolist()
        [1, 2]
    """
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, count), x)


def _one_hot(like: Array, index: Any) -> Array:
    return jnp.zeros(like.size, like.dtype).at[index].set(1).reshape(like.shape)
