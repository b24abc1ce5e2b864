"""An array in a few numbers: what is wrong in it, and how large the rest is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.program.specs import describe


@dataclass(frozen=True)
class Statistics:
    """What an array holds.

    Attributes:
        name: what it is: an argument's address, or a place in an equation.
        array: its dtype and shape, as in ``float32[8,3]``.
        nan: how many elements are NaN.
        positive_infinite: how many are +Inf.
        negative_infinite: how many are -Inf.
        least: the smallest finite element; None if there is none, or if the dtype has no order.
        most: the largest finite element; likewise.
        first_bad: index of the first NaN, or of the first Inf if there is no NaN; None if all are
            finite.

    Example:
        >>> import jax.numpy as jnp
        >>> print(statistics("x", jnp.array([1.0, jnp.nan, -jnp.inf, 3.0])))
        x float32[4]: 1 NaN, 0 +Inf, 1 -Inf, the rest from 1 to 3, first at [1]
    """

    name: str
    array: str
    nan: int = 0
    positive_infinite: int = 0
    negative_infinite: int = 0
    least: float | None = None
    most: float | None = None
    first_bad: tuple[int, ...] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether there is neither NaN nor Inf in it."""
        return self.first_bad is None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        words = [] if self.least is None else [f"from {self.least:.6g} to {self.most:.6g}"]
        if self.first_bad is not None:
            words = [f"the rest {word}" for word in words] or ["nothing else"]
            words = [
                f"{self.nan} NaN",
                f"{self.positive_infinite} +Inf",
                f"{self.negative_infinite} -Inf",
                *words,
                f"first at [{', '.join(map(str, self.first_bad))}]",
            ]
        return f"{self.name} {self.array}" + (f": {', '.join(words)}" if words else "")


def statistics(name: str, array: Any) -> Statistics:
    """Count and measure an array of any dtype; typed keys are only described.

    Args:
        name: what to call it.
        array: an array on any device, or a number.

    Example:
        >>> import numpy as np
        >>> print(statistics("tokens", np.array([3, 1], np.int32)))
        tokens int32[2]: from 1 to 3
    """
    values, described = host_array(array), describe(array)
    if values is None or values.size == 0:
        return Statistics(name, described)
    if not np.iscomplexobj(values):
        # The extension types (bfloat16, float8) have no nanmin, and no Inf in some of them.
        values = values.astype(np.float64)
    nan = np.isnan(values)
    positive, negative = np.isposinf(np.real(values)), np.isneginf(np.real(values))
    finite = values[np.isfinite(values)]
    bad = nan if nan.any() else ~np.isfinite(values)
    ordered = finite.size > 0 and not np.iscomplexobj(values)
    return Statistics(
        name,
        described,
        nan=int(nan.sum()),
        positive_infinite=int(positive.sum()),
        negative_infinite=int(negative.sum()),
        least=float(finite.min()) if ordered else None,
        most=float(finite.max()) if ordered else None,
        first_bad=tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))[: values.ndim]
        if bad.any()
        else None,
    )


def host_array(array: Any) -> np.ndarray | None:
    """An array's numbers on the host; None of typed keys and of what is no array.

    Example:
        >>> import jax
        >>> host_array(jax.random.key(0)) is None, host_array(1.5).tolist()
        (True, 1.5)
    """
    dtype = getattr(array, "dtype", None)
    if isinstance(dtype, np.dtype):
        return np.asarray(array)
    if isinstance(array, bool | int | float | complex):
        return np.asarray(array)
    return None


def is_inexact(array: Any) -> bool:
    """Whether an array's elements can be NaN or Inf at all.

    Example:
        >>> import numpy as np
        >>> is_inexact(np.zeros(2, np.float32)), is_inexact(np.zeros(2, np.int32))
        (True, False)
    """
    return bool(jnp.issubdtype(jax.dtypes.result_type(array), jnp.inexact))
