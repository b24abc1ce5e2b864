"""Floating-point operations of a function, counted in its jaxpr.

XLA's own analysis counts the body of a loop once whatever its length; here a ``scan`` counts as
often as it runs, and each operation can be put down to the part of the model that it belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from functorch_kit.program.operations import has_rule, operations
from functorch_kit.program.scopes import join, path_of
from functorch_kit.program.specs import to_spec
from functorch_kit.types import PyTree


def flops(fn: Callable[..., Any], *specs: PyTree) -> int:
    """Floating-point operations of one call, from the shapes alone.

    A matrix product counts ``2 M N K``, a convolution ``2 * outputs * window * channels / groups``,
    an elementwise operation the size of its output, a reduction the size of its input. A ``scan``
    counts its body as often as it runs, a ``cond`` its dearest branch; a ``while`` whose trip count
    is not known counts as one pass, so a chunk of training steps reports the operations of a step.

    Args:
        fn: a pure function that JAX can trace.
        *specs: its arguments, or ``jax.ShapeDtypeStruct``s in their place.

    Returns:
        The number of operations of the whole call (not a rate).

    Example:
        >>> import jax.numpy as jnp
        >>> flops(lambda x, w: x @ w, jnp.zeros((8, 3)), jnp.zeros((3, 5)))
        240
    """
    return sum(flops_by_scope(fn, *specs).values())


def flops_by_scope(fn: Callable[..., Any], *specs: PyTree) -> dict[str, int]:
    """The same count, divided by the ``jax.named_scope`` that each operation stands in.

    Gradients count to the scope of what they differentiate. An operation counts once, to the
    innermost scope; ``""`` holds what is outside any.

    Args:
        fn: a pure function that JAX can trace.
        *specs: its arguments, or ``jax.ShapeDtypeStruct``s in their place.

    Returns:
        Path -> operations, in order of execution; scopes without operations are left out.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def net(x):
        ...     with jax.named_scope("act"):
        ...         return jnp.tanh(x)
        >>> flops_by_scope(net, jnp.zeros(7))
        {'act': 7}
    """
    jaxpr = jax.make_jaxpr(fn)(*map(to_spec, specs))
    return jaxpr_flops_by_scope(jaxpr.jaxpr)


def jaxpr_flops_by_scope(jaxpr: Jaxpr) -> dict[str, int]:
    """``flops_by_scope`` of a function that has been traced already.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jaxpr_flops_by_scope(jax.make_jaxpr(jnp.sin)(jnp.zeros(3)).jaxpr)
        {'': 3}
    """
    return {path: count for path, count in _count(jaxpr, "").items() if count}


def equations(jaxpr: Jaxpr, outer: str = "") -> Iterator[tuple[str, JaxprEqn]]:
    """Every equation, nested ones too, with the path of the scope that it stands in.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jaxpr = jax.make_jaxpr(jax.jit(jnp.sin))(1.0).jaxpr
        >>> [eqn.primitive.name for _, eqn in equations(jaxpr)][-1]
        'sin'
    """
    for eqn in jaxpr.eqns:
        path = join(outer, path_of(str(eqn.source_info.name_stack)))
        yield path, eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner, path)


def _count(jaxpr: Jaxpr, outer: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        path = join(outer, path_of(str(eqn.source_info.name_stack)))
        inner = [] if has_rule(eqn) else list(jaxprs_in_params(eqn.params))
        if not inner:
            total[path] += operations(eqn)
            continue
        counts = [_count(each, path) for each in inner]
        match eqn.primitive.name:
            case "cond":
                counts = [max(counts, key=lambda count: sum(count.values()))]
            case "custom_linear_solve":
                counts = [_count(eqn.params["jaxprs"].solve.jaxpr, path)]
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for count in counts:
            for scope, number in count.items():
                total[scope] += times * number
    return total
