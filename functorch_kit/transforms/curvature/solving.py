"""Linear systems in a curvature matrix, by conjugate gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import PyTree


class Solution(NamedTuple):
    """What came of a linear system.

    Attributes:
        x: the solution, like the parameters.
        residual: norm of ``b - (A + damping) x`` over that of ``b``, from a product of its own at
            the end: the recurrence's residual may drift away from the true one.
        products: how many products with the matrix it took.
    """

    x: PyTree
    residual: float
    products: int


def solve(
    operator: Operator,
    b: PyTree,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-5,
    products: int = 100,
) -> Solution:
    """``(A + damping I) x = b``: a Newton step, where ``b`` is the gradient.

    Hestenes and Stiefel, 1952. The matrix has to be positive definite with its damping, as a
    Gauss-Newton matrix with any damping above 0 is.

    Args:
        operator: the matrix A.
        b: the right side, like the parameters.
        damping: added to the diagonal, from 0 up.
        tolerance: of the residual's norm, relative to that of ``b``.
        products: at most so many; the residual tells what came of it.

    Returns:
        The solution and its residual.

    Raises:
        TransformError: a negative damping or no products, ``b`` unlike the parameters, or a
            direction of negative curvature.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.types import spec_of
        >>> scales = jnp.array([1.0, 3.0])
        >>> matrix = Operator(lambda v: scales * v, spec_of(scales))
        >>> found = solve(matrix, jnp.array([2.0, 4.0]), damping=1.0)
        >>> found.x.round(4).tolist(), found.residual < 1e-5
        ([1.0, 1.0], True)
    """
    if damping < 0 or products < 2:
        raise TransformError(
            f"solve: damping {damping:g} and {products} products: give a damping from 0 up and"
            " 2 products or more, one of which tells the residual"
        )
    operator._check(b)
    shift = np.asarray(damping, operator.dtype)
    right = operator.flatten(b)
    size = float(jnp.linalg.norm(right))
    x, rest = jnp.zeros_like(right), right
    direction, square = rest, float(jnp.vdot(rest, rest))
    spent = 0
    while spent < products - 1 and square**0.5 > tolerance * size:
        product = operator.flat(direction) + shift * direction
        spent += 1
        curvature = float(jnp.vdot(direction, product))
        if not curvature > 0:
            raise TransformError(
                f"solve: curvature {curvature:.3g} along a direction is not above 0: take"
                " gauss_newton, or a larger damping"
            )
        x, rest, new = _along(x, rest, direction, product, square / curvature)
        new = float(new)
        direction, square = _conjugate(rest, direction, new / square), new
    left = right - operator.flat(x) - shift * x
    residual = float(jnp.linalg.norm(left)) / size if size else 0.0
    return Solution(operator.unflatten(x), residual, spent + 1)


@jax.jit
def _along(x, rest, direction, product, length):
    length = length.astype(x.dtype)
    rest = rest - length * product
    return x + length * direction, rest, jnp.vdot(rest, rest)


@jax.jit
def _conjugate(rest, direction, factor):
    return rest + factor.astype(rest.dtype) * direction
