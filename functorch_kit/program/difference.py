"""How far two results are apart, leaf by leaf."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.types import PyTree

NamedLeaves = dict[str, Any]
"""Address -> NumPy array: a result, copied to the host."""


@dataclass(frozen=True)
class Difference:
    """The largest difference between two results.

    Attributes:
        absolute: the largest absolute difference of all elements.
        relative: the largest in units of its leaf's scale, which is the largest absolute value of
            the reference's leaf.
        leaf: the address of the leaf that ``relative`` is of; None if nothing differs.
    """

    absolute: float
    relative: float
    leaf: str | None


def to_host(named: list[tuple[str, PyTree]]) -> NamedLeaves:
    """Copy named leaves to the host; of typed PRNG keys, the key data.

    Example:
        >>> to_host([("w", jnp.ones(2))])["w"].tolist()
        [1.0, 1.0]
    """
    return {name: _array(leaf) for name, leaf in named}


def largest_difference(reference: NamedLeaves, other: NamedLeaves) -> Difference:
    """Compare a result with a reference.

    Floating-point leaves by the size of their difference, where NaN equals NaN and nothing else;
    integers, booleans and PRNG keys have to be equal, or else differ by an infinite multiple of
    their scale.

    Args:
        reference: what it ought to be.
        other: what it is.

    Returns:
        The largest difference over all leaves.

    Raises:
        ValueError: the two have other leaves, or leaves of other shapes.

    Example:
        >>> import numpy as np
        >>> one, other = {"w": np.array([0.0, 4.0])}, {"w": np.array([0.5, 4.0])}
        >>> largest_difference(one, other)
        Difference(absolute=0.5, relative=0.125, leaf='w')
    """
    if names := reference.keys() ^ other.keys():
        raise ValueError(f"the result has other leaves than the reference: {min(names)}")
    worst = Difference(0.0, 0.0, None)
    for name, expected in reference.items():
        absolute, relative = _leaf_difference(name, expected, other[name])
        leaf = name if relative > worst.relative else worst.leaf
        worst = Difference(max(absolute, worst.absolute), max(relative, worst.relative), leaf)
    return worst


def _array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.array(leaf)


def _leaf_difference(name: str, expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    if expected.shape != got.shape:
        raise ValueError(f"{name} has shape {got.shape}, the reference has {expected.shape}")
    exact = not (_inexact(expected) and _inexact(got))
    wide = np.complex128 if np.iscomplexobj(expected) or np.iscomplexobj(got) else np.float64
    one, other = expected.astype(wide), got.astype(wide)
    # Compared before they are widened: above 2^53 neighbouring integers look the same in float64.
    same = (expected == got) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(one - other)
    # NaN against a number, or infinity against the other infinity: as far apart as can be.
    distance = np.where(same, 0.0, np.where(np.isnan(distance), math.inf, distance))
    absolute = float(distance.max())
    if exact:
        return absolute, math.inf
    # Of a leaf that ought to be all zeros, what came is the only scale there is.
    scale = _scale(one) or _scale(other)
    return absolute, absolute / scale if scale else math.inf


def _inexact(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _scale(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0
