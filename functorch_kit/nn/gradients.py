"""Layers whose gradient is not that of what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.nn.combinators import lambda_
from functorch_kit.types import Model


def custom_gradient(
    function: Callable[[Any], Any],
    forward: Callable[[Any], tuple[Any, Any]],
    backward: Callable[[Any, Any], tuple[Any]],
) -> Model:
    """A function of x with a gradient written by hand, as a Model.

    Args:
        function: from x to y.
        forward: from x to (y, what the way back needs).
        backward: from (that, the gradient of y) to (the gradient of x,).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> relu = nn.custom_gradient(
        ...     lambda x: jnp.maximum(x, 0),
        ...     lambda x: (jnp.maximum(x, 0), x > 0),
        ...     lambda is_on, slope: (jnp.where(is_on, slope, 0),))
        >>> jax.grad(lambda x: relu.apply({}, (), x)[0].sum())(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 1.0]
    """
    differentiated = jax.custom_vjp(function)
    differentiated.defvjp(forward, backward)
    return lambda_(differentiated)


def reverse_gradient(scale: float | jax.Array = 1.0) -> Model:
    """x itself, whose gradient is ``-scale`` times what arrives.

    Ganin and Lempitsky, 2015: what stands before it learns to do badly what stands behind it does.

    Args:
        scale: may be traced.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> jax.grad(lambda x: nn.reverse_gradient(2.0).apply({}, (), x)[0])(1.0).item()
        -2.0
    """

    # The scale is an argument, not a constant of the rule: it may be traced, and JAX's rules must
    # not close over what is traced.
    @jax.custom_jvp
    def same(x, scale):
        return x

    @same.defjvp
    def slope(primals, tangents):
        x, scale = primals
        return x, -scale * tangents[0]

    def reverse(x):
        return same(x, jnp.asarray(scale, x.dtype))

    return lambda_(lambda x: jax.tree.map(reverse, jax.tree.map(jnp.asarray, x)))


def straight_through(function: Callable[[Any], Any]) -> Model:
    """``function(x)`` with the gradient of x itself: rounding, signs and choices that learn.

    Bengio, Léonard and Courville, 2013.

    Args:
        function: keeps shape and dtype.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> sign = nn.straight_through(jnp.sign)
        >>> y, slope = jax.value_and_grad(lambda x: sign.apply({}, (), x)[0])(-0.3)
        >>> y.item(), slope.item()
        (-1.0, 1.0)
    """

    @jax.custom_jvp
    def through(x):
        return function(x)

    @through.defjvp
    def slope(primals, tangents):
        return through(primals[0]), tangents[0]

    return lambda_(through)
