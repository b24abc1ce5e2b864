"""What lies inside an equation of a jaxpr, and running an equation by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import ClosedJaxpr, JaxprEqn, jaxprs_in_params

# Equations that are one call of the jaxpr they hold, with their own operands and results.
_CALLS = {
    "checkpoint",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "jit",
    "pjit",
    "remat2",
}


@dataclass(frozen=True)
class Scan:
    """A ``scan`` equation, its operands and results counted.

    Attributes:
        body: what one iteration does.
        consts: how many operands, the first, go to every iteration as they are.
        carry: how many operands, the next, pass from iteration to iteration; also how many results.
        length: number of iterations.
        reverse: whether the last row of the other operands comes first.
    """

    body: ClosedJaxpr
    consts: int
    carry: int
    length: int
    reverse: bool


def closed(jaxpr: Any) -> ClosedJaxpr:
    """A jaxpr with its constants; one that came alone (of a remat) has none.

    Example:
        >>> import jax
        >>> len(closed(jax.make_jaxpr(lambda x: x + 1)(1.0)).jaxpr.eqns)
        1
    """
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def called(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The jaxpr that an equation calls once; None for arithmetic, loops and branches.

    Example:
        >>> import jax
        >>> (eqn,) = jax.make_jaxpr(jax.jit(lambda x: 2 * x))(1.0).jaxpr.eqns
        >>> called(eqn).jaxpr.eqns[0].primitive.name
        'mul'
    """
    if eqn.primitive.name not in _CALLS:
        return None
    return closed(eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"])


def scan_of(eqn: JaxprEqn) -> Scan:
    """The parts of a scan.

    They are told by their shapes: what is stacked has one axis more outside than in the body.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.lax.scan(lambda c, x: (c + x, c), 0.0, x, reverse=True)
        >>> scan = scan_of(jax.make_jaxpr(f)(jnp.ones(5)).jaxpr.eqns[-1])
        >>> scan.consts, scan.carry, scan.length, scan.reverse
        (0, 1, 5, True)
    """
    body = closed(eqn.params["jaxpr"])
    carry = len(eqn.outvars) - _stacked(eqn.outvars, body.jaxpr.outvars)
    consts = len(eqn.invars) - carry - _stacked(eqn.invars, body.jaxpr.invars)
    return Scan(body, consts, carry, eqn.params["length"], eqn.params["reverse"])


def execute(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of an equation, for given operands; nothing is donated.

    Example:
        >>> import jax
        >>> execute(jax.make_jaxpr(lambda x: -x)(1.0).jaxpr.eqns[0], [2.0])[0].item()
        -2.0
    """
    params = dict(eqn.primitive.get_bind_params(eqn.params))
    if "donated_invars" in params:
        params["donated_invars"] = (False,) * len(eqn.invars)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def holds(jaxpr: Any, primitive: str) -> bool:
    """Whether a jaxpr, or one inside it, has an equation of a primitive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jaxpr = jax.make_jaxpr(jax.jit(jnp.sin))(1.0).jaxpr
        >>> holds(jaxpr, "sin"), holds(jaxpr, "cos")
        (True, False)
    """
    return any(
        eqn.primitive.name == primitive
        or any(holds(inner, primitive) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _stacked(outside: Iterable[Any], inside: Iterable[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(outer.aval.shape) > len(inner.aval.shape) for outer, inner in pairs)
