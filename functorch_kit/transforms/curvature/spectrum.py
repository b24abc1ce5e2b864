"""The eigenpairs at an end of the spectrum, by Lanczos with full reorthogonalisation."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import Key, PyTree

_ENDS = {
    "largest": lambda values: np.argsort(-values),
    "smallest": np.argsort,
    "magnitude": lambda values: np.argsort(-np.abs(values)),
}


class Eigenpairs(NamedTuple):
    """Some eigenvalues of a symmetric matrix and their vectors.

    Attributes:
        values: (k,), from the end of the spectrum that was asked for inwards.
        vectors: a pytree like the parameters with a leading axis of k; each has norm 1.
        residuals: (k,) norms of A v - value v: a true eigenvalue is that near.
        products: how many products with the matrix it took.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    residuals: Float[Array, " k"]
    products: int


def eigenpairs(
    operator: Operator,
    k: int = 1,
    *,
    key: Key,
    end: str = "largest",
    tolerance: float | None = None,
    products: int = 100,
) -> Eigenpairs:
    """The top of the spectrum.

    Lanczos' method (1950) from a random vector; each new vector is orthogonalised against all
    before it, twice, so that rounding makes no copies of eigenvalues. It stops when every residual
    is small; of an eigenvalue that occurs several times it may find one only. It holds a vector for
    each product.

    Args:
        operator: the matrix.
        k: how many pairs.
        key: of the first vector.
        end: ``"largest"``, ``"smallest"`` (most negative), or ``"magnitude"``.
        tolerance: residuals at most this times the largest magnitude; None for the square root of
            the machine's precision, which makes eigenvalues exact to about that precision.
        products: at most so many; the residuals tell what came of it.

    Returns:
        The pairs.

    Raises:
        TransformError: more pairs than parameters or products, or an unknown end.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.types import spec_of
        >>> scales = jnp.array([3.0, -5.0, 1.0, 0.5])
        >>> matrix = Operator(lambda v: scales * v, spec_of(scales))
        >>> found = eigenpairs(matrix, 2, key=jax.random.key(0))
        >>> [round(float(value), 3) for value in found.values]
        [3.0, 1.0]
    """
    if end not in _ENDS:
        raise TransformError(f"eigenpairs: end {end!r} is not one of {', '.join(_ENDS)}")
    steps = min(products, operator.size)
    if not 1 <= k <= steps:
        raise TransformError(
            f"eigenpairs: k is {k}: give a number from 1 to {steps}, of {operator.size} parameters"
            f" and {products} products"
        )
    precision = float(np.finfo(operator.dtype).eps)
    tolerance = precision**0.5 if tolerance is None else tolerance
    start_key, *fresh = jax.random.split(key, steps + 1)
    rows = jnp.zeros((steps, operator.size), operator.dtype)
    q = jax.random.normal(start_key, (operator.size,), operator.dtype)
    q = q / jnp.linalg.norm(q)
    tridiagonal = np.zeros((steps + 1, steps + 1))
    order, values, inner, residuals = np.arange(0), np.zeros(0), np.zeros((0, 0)), np.zeros(0)
    for step in range(steps):
        rows = _put(rows, step, q)
        rest, along, norm = _orthogonalised(rows, q, operator.flat(q))
        tridiagonal[step, step], beta = float(along), float(norm)
        if not np.isfinite(tridiagonal[step, step] + beta):
            raise TransformError("eigenpairs: a product is not finite: look at the parameters")
        values, inner = np.linalg.eigh(tridiagonal[: step + 1, : step + 1])
        order = _ENDS[end](values)[:k]
        residuals = beta * np.abs(inner[-1])
        scale = max(np.abs(values).max(), np.finfo(operator.dtype).tiny)
        if beta <= 10 * precision * scale * operator.size**0.5:
            # The space is invariant: what is left of the matrix begins with a vector of its own.
            if step + 1 >= k:
                break
            rest = jax.random.normal(fresh[step], (operator.size,), operator.dtype)
            rest, _, norm = _orthogonalised(rows, q, rest)
            beta = 0.0
        elif step + 1 >= k and np.all(residuals[order] <= tolerance * scale):
            break
        tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = beta
        q = rest / norm
    vectors = jnp.asarray(inner[:, order].T, operator.dtype) @ rows[: len(values)]
    return Eigenpairs(
        jnp.asarray(values[order], operator.dtype),
        operator.unflatten(vectors),
        jnp.asarray(residuals[order], operator.dtype),
        len(values),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _put(rows, index, row):
    return rows.at[index].set(row)


@jax.jit
def _orthogonalised(rows, q, product):
    """What is new in a product, its part along q, and the norm of what is new."""
    along = jnp.vdot(q, product)
    for _ in range(2):  # twice is enough (Parlett, 1980)
        product = product - rows.T @ (rows @ product)
    return product, along, jnp.linalg.norm(product)
