"""How far two results are apart, leaf by leaf."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.types import PyTree

NamedLeaves = dict[str, Any]
"""Address -> NumPy array: a result, copied to the host."""


class Difference(NamedTuple):
    """How far one leaf is from the reference's.

    Attributes:
        absolute: the largest absolute difference of its elements.
        relative: that in units of the leaf's scale, which is the largest absolute value of the
            reference's leaf.
    """

    absolute: float
    relative: float


# Where results are carried through some steps, roundings add up: each is some hundred roundings,
# and for the half formats, whose every operation rounds by up to 0.4 and 0.05 %, a few.
_TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 2e-2}


def tolerance_of(dtype: Any) -> float:
    """The relative difference that the order of operations alone may make in a dtype.

    Args:
        dtype: that of the arithmetic; a complex one is judged by its parts, an integer is exact.

    Example:
        >>> tolerance_of("float32"), tolerance_of("bfloat16"), tolerance_of("int32")
        (1e-05, 0.02, 0.0)
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        dtype = jnp.finfo(dtype).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        return 0.0
    # Of formats narrower still, eight roundings.
    return _TOLERANCES.get(dtype.name, 8 * float(jnp.finfo(dtype).eps))


def to_host(named: list[tuple[str, PyTree]]) -> NamedLeaves:
    """Copy named leaves to the host; of typed PRNG keys, the key data.

    Example:
        >>> to_host([("w", jnp.ones(2))])["w"].tolist()
        [1.0, 1.0]
    """
    return {name: _array(leaf) for name, leaf in named}


def differences(reference: NamedLeaves, other: NamedLeaves) -> dict[str, Difference]:
    """Compare a result with a reference, leaf by leaf.

    Floating-point leaves by the size of their difference, where NaN equals NaN and nothing else;
    integers, booleans and PRNG keys have to be equal, or else differ by an infinite multiple of
    their scale.

    Args:
        reference: what it ought to be.
        other: what it is.

    Returns:
        A difference for each leaf.

    Raises:
        ValueError: the two have other leaves, or leaves of other shapes.

    Example:
        >>> import numpy as np
        >>> one, other = {"w": np.array([0.0, 4.0])}, {"w": np.array([0.5, 4.0])}
        >>> differences(one, other)
        {'w': Difference(absolute=0.5, relative=0.125)}
    """
    if names := reference.keys() ^ other.keys():
        raise ValueError(f"the result has other leaves than the reference: {min(names)}")
    return {
        name: leaf_difference(name, expected, other[name]) for name, expected in reference.items()
    }


def _array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.array(leaf)


def leaf_difference(name: str, expected: np.ndarray, got: np.ndarray) -> Difference:
    """Compare one leaf with the reference's; see ``differences``.

    Example:
        >>> import numpy as np
        >>> leaf_difference("w", np.array([-4.0, 1.0]), np.array([-4.0, 2.0])).relative
        0.25
    """
    if expected.shape != got.shape:
        raise ValueError(f"{name} has shape {got.shape}, the reference has {expected.shape}")
    exact = not (_inexact(expected) and _inexact(got))
    wide = np.complex128 if np.iscomplexobj(expected) or np.iscomplexobj(got) else np.float64
    one, other = expected.astype(wide), got.astype(wide)
    # Compared before they are widened: above 2^53 neighbouring integers look the same in float64.
    same = (expected == got) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return Difference(0.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(one - other)
    # NaN against a number, or infinity against the other infinity: as far apart as can be.
    distance = np.where(same, 0.0, np.where(np.isnan(distance), math.inf, distance))
    absolute = float(distance.max())
    if exact:
        return Difference(absolute, math.inf)
    # Of a leaf that ought to be all zeros, what came is the only scale there is.
    scale = _scale(one) or _scale(other)
    return Difference(absolute, absolute / scale if scale else math.inf)


def _inexact(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def _scale(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0
