"""One forward pass that serves products with a Jacobian and with its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from functorch_kit.types import Params, PyTree


def linearised(f: Callable[[Params], PyTree], params: Params) -> tuple[PyTree, PyTree]:
    """The value of ``f`` and its linearisation, a pytree that may leave a compiled program.

    Where ``f`` has a reverse rule alone (``jax.custom_vjp``), it is made from that.

    Args:
        f: from parameters to outputs.
        params: where.

    Returns:
        The outputs, and what ``both_ways`` takes.

    Example:
        >>> import jax.numpy as jnp
        >>> y, linear = linearised(lambda w: w**2, jnp.array([1.0, 2.0]))
        >>> push, pull = both_ways(y, linear, jnp.zeros(2))
        >>> push(jnp.ones(2)).tolist(), pull(jnp.ones(2)).tolist()
        ([2.0, 4.0], [2.0, 4.0])
    """
    y, push = jax.linearize(f, params)
    if _has_a_reverse_rule_alone(jax.make_jaxpr(push)(params).jaxpr):
        y, pull = jax.vjp(f, params)
        return y, {"pull": pull}
    return y, {"push": push}


def both_ways(
    y: PyTree, linear: PyTree, params: Params
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """From a linearisation to its two products.

    Args:
        y: like the outputs: shapes and dtypes are read.
        linear: what ``linearised`` returned.
        params: like the parameters.

    Returns:
        ``v -> J v`` and ``u -> J^T u``.

    Example:
        >>> import jax.numpy as jnp
        >>> y, linear = linearised(jnp.sum, jnp.zeros(3))
        >>> both_ways(y, linear, jnp.zeros(3))[1](jnp.ones(())).tolist()
        [1.0, 1.0, 1.0]
    """
    if "push" in linear:
        push = linear["push"]
        transposed = jax.linear_transpose(push, params)
        return push, lambda u: transposed(u)[0]
    pull = linear["pull"]
    forward = jax.linear_transpose(lambda u: pull(u)[0], y)
    return lambda v: forward(v)[0], lambda u: pull(u)[0]


def _has_a_reverse_rule_alone(jaxpr: Any) -> bool:
    """Whether a linear program holds what ``custom_vjp`` leaves: it can be transposed only."""
    return any(
        eqn.primitive.name == "custom_lin"
        or any(_has_a_reverse_rule_alone(inner) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )
