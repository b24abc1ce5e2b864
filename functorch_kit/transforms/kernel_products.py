"""Products of Jacobians with each other, whole ones and those left in factors."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

OUTPUTS = ("full", "diagonal", "trace")


class Factors(NamedTuple):
    """One parameter's Jacobian for some examples: the sum over the rows of x times g.

    Attributes:
        x: (examples, rows, inputs).
        g: (examples, outputs, rows, features).
    """

    x: Float[Array, "examples rows inputs"]
    g: Float[Array, "examples outputs rows features"]


Jacobian = list[Array | Factors]
"""For each leaf of the parameters (examples, outputs, size), or its factors."""


@functools.partial(jax.jit, static_argnums=0)
def contracted(outputs: str, left: Jacobian, right: Jacobian) -> Array:
    """J J^T of two chunks of examples, summed over the leaves.

    Returns:
        (rows, columns, outputs, outputs), (rows, columns, outputs), or (rows, columns).

    Example:
        >>> one = [jnp.array([[[1.0], [2.0]]])]
        >>> contracted("full", one, one).tolist(), contracted("trace", one, one).tolist()
        ([[[[1.0, 2.0], [2.0, 4.0]]]], [[5.0]])
    """
    total: Any = 0
    for a, b in zip(left, right, strict=True):
        if isinstance(a, Factors) or isinstance(b, Factors):
            assert isinstance(a, Factors)
            assert isinstance(b, Factors)
            total = _of_factors(outputs, a, b) + total
            continue
        match outputs:
            case "full":  # one matrix product, rows and outputs together
                product = a.reshape(-1, a.shape[2]) @ b.reshape(-1, b.shape[2]).T
                product = product.reshape(*a.shape[:2], *b.shape[:2]).transpose(0, 2, 1, 3)
            case "diagonal":
                product = lax.dot_general(a, b, (((2,), (2,)), ((1,), (1,)))).transpose(1, 2, 0)
            case _:
                product = a.reshape(a.shape[0], -1) @ b.reshape(b.shape[0], -1).T
        total = product + total
    return total


@functools.partial(jax.jit, static_argnums=0)
def with_itself(outputs: str, rows: Jacobian) -> Array:
    """Each example's own block: (rows, outputs, outputs), (rows, outputs), or (rows,).

    Example:
        >>> with_itself("trace", [jnp.array([[[1.0], [2.0]]])]).tolist()
        [5.0]
    """
    total: Any = 0
    for a in rows:
        if isinstance(a, Factors):
            total = _with_itself(outputs, a) + total
            continue
        match outputs:
            case "full":
                product = lax.dot_general(a, a, (((2,), (2,)), ((0,), (0,))))
            case "diagonal":
                product = jnp.sum(jnp.square(a), 2)
            case _:
                product = jnp.sum(jnp.square(a), (1, 2))
        total = product + total
    return total


def _of_factors(outputs: str, left: Factors, right: Factors) -> Array:
    """One parameter's part of ``contracted``."""
    if left.x.shape[1] == 1:  # one row: the products of the factors multiply
        inputs = left.x[:, 0] @ right.x[:, 0].T
        a, b = left.g[:, :, 0], right.g[:, :, 0]
        match outputs:
            case "full":
                slopes = a.reshape(-1, a.shape[2]) @ b.reshape(-1, b.shape[2]).T
                slopes = slopes.reshape(*a.shape[:2], *b.shape[:2]).transpose(0, 2, 1, 3)
                return slopes * inputs[:, :, None, None]
            case "diagonal":
                slopes = lax.dot_general(a, b, (((2,), (2,)), ((1,), (1,)))).transpose(1, 2, 0)
                return slopes * inputs[:, :, None]
            case _:
                return (a.reshape(len(a), -1) @ b.reshape(len(b), -1).T) * inputs
    inputs = jnp.einsum("atf,bsf->abts", left.x, right.x)
    form = {
        "full": "abts,aotf,bqsf->aboq",
        "diagonal": "abts,aotf,bosf->abo",
        "trace": "abts,aotf,bosf->ab",
    }[outputs]
    return jnp.einsum(form, inputs, left.g, right.g, optimize="optimal")


def _with_itself(outputs: str, rows: Factors) -> Array:
    """One parameter's part of ``with_itself``."""
    inputs = jnp.einsum("atf,asf->ats", rows.x, rows.x)
    form = {
        "full": "ats,aotf,aqsf->aoq",
        "diagonal": "ats,aotf,aosf->ao",
        "trace": "ats,aotf,aosf->a",
    }[outputs]
    return jnp.einsum(form, inputs, rows.g, rows.g, optimize="optimal")
