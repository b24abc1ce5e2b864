"""How many floating-point operations one jaxpr equation does.

A multiply-add counts two, everything else one per element: an ``exp`` as much as an addition.
Moving, comparing integers, and drawing random bits count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.extend.core import JaxprEqn

_MOVES = frozenset(
    """
    all_gather all_to_all bitcast_convert_type broadcast_in_dim complex concatenate conj
    convert_element_type copy copy_p device_put dynamic_slice dynamic_update_slice empty empty2
    gather get imag iota mesh_cast name optimization_barrier pad pcast ppermute pvary
    ragged_all_to_all real reduce_precision reshape reshard rev scatter select_n
    sharding_constraint slice split squeeze stop_gradient swap transpose
    """.split()
)
_REDUCTIONS = frozenset(
    """
    reduce reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor
    argmax argmin cumsum cumprod cummax cummin cumlogsumexp
    """.split()
)


def operations(eqn: JaxprEqn) -> int:
    """Floating-point operations of one equation that holds no jaxpr to follow.

    Args:
        eqn: an equation; its operands' shapes and its parameters are all that is read.

    Returns:
        The number of operations; an unknown primitive counts as elementwise.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jaxpr = jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 3)), jnp.ones((3, 4)))
        >>> [operations(eqn) for eqn in jaxpr.eqns]
        [48]
    """
    name = eqn.primitive.name.replace("-", "_")
    if name in _RULES:
        return _RULES[name](eqn)
    avals = [variable.aval for variable in (*eqn.invars, *eqn.outvars)]
    if name in _MOVES or not any(map(_inexact, avals)):
        return 0
    if name in _REDUCTIONS:
        return _size(eqn.invars[0])
    return max(map(_size, eqn.outvars), default=0)


def has_rule(eqn: JaxprEqn) -> bool:
    """Whether the count is known from the primitive alone, whatever jaxprs it carries.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> has_rule(jax.make_jaxpr(jnp.sin)(1.0).eqns[0])
        False
    """
    name = eqn.primitive.name.replace("-", "_")
    return name in _RULES or name in _MOVES or name in _REDUCTIONS


def _inexact(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))


def _dot(eqn: JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = _shape(eqn.invars[0])
    return 2 * _size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _ragged_dot(eqn: JaxprEqn) -> int:
    # Each row meets the one matrix of its group: as many products as one dense matrix would need.
    numbers = eqn.params.get("ragged_dot_dimension_numbers")
    if numbers is None:
        return 2 * _size(eqn.outvars[0]) * _shape(eqn.invars[0])[-1]
    (contracted, _), _ = numbers.dot_dimension_numbers
    shape = _shape(eqn.invars[0])
    if set(numbers.lhs_ragged_dimensions) & set(contracted):
        groups = _shape(eqn.invars[2])[-1]
        return 2 * _size(eqn.outvars[0]) * math.prod(shape[a] for a in contracted) // groups
    return 2 * _size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _conv(eqn: JaxprEqn) -> int:
    numbers = eqn.params["dimension_numbers"]
    lhs, rhs = map(_shape, eqn.invars)
    out = _shape(eqn.outvars[0])
    products = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for lhs_axis, rhs_axis, out_axis in axes:
        # A tap of the window meets an input element at no more than one output position. Without
        # the bound a gradient, which is a convolution over padded and dilated zeros, would count
        # more than the convolution that it differentiates.
        products *= rhs[rhs_axis] * min(out[out_axis], lhs[lhs_axis])
    return 2 * products


def _window(eqn: JaxprEqn) -> int:
    return _size(eqn.outvars[0]) * math.prod(eqn.params["window_dimensions"])


def _select_and_scatter(eqn: JaxprEqn) -> int:
    return _size(eqn.invars[0]) * math.prod(eqn.params["window_dimensions"])


def _scatter(eqn: JaxprEqn) -> int:
    return _size(eqn.invars[2]) if _inexact(eqn.invars[2].aval) else 0


def _sort(eqn: JaxprEqn) -> int:
    shape = _shape(eqn.invars[0])
    length = shape[eqn.params.get("dimension", -1)] if shape else 1
    return _size(eqn.invars[0]) * max(length - 1, 0).bit_length()


def _matrix(fraction: float) -> Callable[[JaxprEqn], int]:
    """A factorization of (…, m, n) costs about ``fraction * m * n * min(m, n)``."""

    def rule(eqn: JaxprEqn) -> int:
        *batch, rows, columns = _shape(eqn.invars[0])
        return round(fraction * math.prod(batch) * rows * columns * min(rows, columns))

    return rule


def _fft(eqn: JaxprEqn) -> int:
    points = math.prod(eqn.params["fft_lengths"])
    return round(5 * _size(eqn.outvars[0]) * math.log2(max(points, 1)))


def _triangular_solve(eqn: JaxprEqn) -> int:
    return _size(eqn.invars[1]) * _shape(eqn.invars[0])[-1]


_RULES: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _dot,
    "ragged_dot": _ragged_dot,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _conv,
    "reduce_window": _window,
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "select_and_scatter_add": _select_and_scatter,
    "select_and_gather_add": _window,
    "scatter_add": _scatter,
    "scatter_sub": _scatter,
    "scatter_mul": _scatter,
    "scatter_min": _scatter,
    "scatter_max": _scatter,
    "sort": _sort,
    "top_k": _sort,
    "fft": _fft,
    "cholesky": _matrix(1 / 3),
    "lu": _matrix(2 / 3),
    "triangular_solve": _triangular_solve,
}
