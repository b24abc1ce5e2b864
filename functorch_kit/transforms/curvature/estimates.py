"""Trace and diagonal from random vectors, with standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import Key, PyTree


class Estimate(NamedTuple):
    """A number, or many, that were estimated from random vectors.

    Attributes:
        value: the estimate, unbiased.
        error: its standard error, in the same unit: two of them either way hold the true value
            about nineteen times in twenty. 0 where the value is exact.
        products: how many products with the matrix it took.
    """

    value: PyTree
    error: PyTree
    products: int


def trace(operator: Operator, *, key: Key, products: int = 30, method: str = "hutch++") -> Estimate:
    """The sum of the diagonal, which is the sum of the eigenvalues.

    Args:
        operator: the matrix.
        key: of the random vectors.
        products: how many products may be spent, from 4 up (``"hutch++"`` from 6 up).
        method: ``"hutchinson"``: the mean of v^T A v over random signs v. ``"hutch++"``: a third of
            the products finds a basis of what is largest, where the trace is exact, and a third
            estimates the rest: a smaller error where few eigenvalues matter, at the memory of
            ``products / 3`` vectors (Meyer, Musco, Musco and Woodruff, 2021).

    Returns:
        The estimate, of shape ``()``.

    Raises:
        TransformError: too few products for an error bar, or an unknown method.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.types import spec_of
        >>> scales = jnp.arange(4.0)
        >>> found = trace(Operator(lambda v: scales * v, spec_of(scales)), key=jax.random.key(0))
        >>> round(float(found.value), 3), found.error.item()  # a basis of all: exact
        (6.0, 0.0)
    """
    if method not in ("hutchinson", "hutch++"):
        raise TransformError(f"trace: method {method!r} is not 'hutchinson' or 'hutch++'")
    least = 4 if method == "hutchinson" else 6
    if products < least:
        raise TransformError(
            f"trace: {products} products give no error bar: give {least} or more to {method!r}"
        )
    if method == "hutchinson":
        value, error = _quadratic_forms(operator, key, products, lambda v: v)
        return Estimate(value, error, products)
    basis_key, rest_key = jax.random.split(key)
    rank = min(products // 3, operator.size)
    sketch = [operator.flat(_signs(operator, each)) for each in jax.random.split(basis_key, rank)]
    basis = _orthonormal(jnp.stack(sketch, axis=1))
    exact = sum(
        (jnp.vdot(column, operator.flat(column)) for column in basis.T),
        start=jnp.zeros((), operator.dtype),
    )
    if rank == operator.size:
        return Estimate(exact, jnp.zeros_like(exact), 2 * rank)
    value, error = _quadratic_forms(
        operator, rest_key, products - 2 * rank, lambda v: _outside(basis, v)
    )
    return Estimate(exact + value, error, products)


def diagonal(operator: Operator, *, key: Key, products: int = 30) -> Estimate:
    """The diagonal, each element with an error bar of its own.

    The mean of v * A v over random signs v: what is off the diagonal cancels, slowly (Bekas,
    Kokiopoulou and Saad, 2007).

    Args:
        operator: the matrix.
        key: of the random vectors.
        products: how many products are spent, from 2 up.

    Returns:
        Estimate and standard errors, pytrees like the parameters.

    Raises:
        TransformError: fewer than 2 products.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.types import spec_of
        >>> scales = jnp.arange(3.0)
        >>> found = diagonal(Operator(lambda v: scales * v, spec_of(scales)),
        ...                  key=jax.random.key(0), products=2)
        >>> found.value.tolist(), found.error.tolist()
        ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    """
    if products < 2:
        raise TransformError(f"diagonal: {products} products give no error bar: give 2 or more")
    mean = squares = jnp.zeros(operator.size, operator.dtype)
    for count, each in enumerate(jax.random.split(key, products), 1):
        v = _signs(operator, each)
        mean, squares = _running(mean, squares, v * operator.flat(v), float(count))
    error = jnp.sqrt(squares / (products - 1) / products)
    return Estimate(operator.unflatten(mean), operator.unflatten(error), products)


def _quadratic_forms(
    operator: Operator, key: Key, count: int, project: Callable[[Array], Array]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean of v^T A v over projected random signs, and its standard error."""
    found = []
    for each in jax.random.split(key, count):
        v = project(_signs(operator, each))
        found.append(jnp.vdot(v, operator.flat(v)))
    samples = jnp.stack(found)
    return jnp.mean(samples), jnp.std(samples, ddof=1) / count**0.5


def _signs(operator: Operator, key: Key) -> Float[Array, " size"]:
    """Of all vectors with independent elements these have the least variance."""
    return jax.random.rademacher(key, (operator.size,), operator.dtype)


@jax.jit
def _orthonormal(columns: Float[Array, "size rank"]) -> Float[Array, "size rank"]:
    return jnp.linalg.qr(columns)[0]


@jax.jit
def _outside(basis: Float[Array, "size rank"], v: Float[Array, " size"]) -> Float[Array, " size"]:
    return v - basis @ (basis.T @ v)


@jax.jit
def _running(mean, squares, sample, count):
    """Welford's update: mean, and sum of squared distances from it, in one pass."""
    delta = sample - mean
    mean = mean + delta / count
    return mean, squares + delta * (sample - mean)
