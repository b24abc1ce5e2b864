"""What a record is outside of training, and what makes of it the numbers that a model takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from functorch_kit.data.augment import scaled

KINDS = ("array", "image", "table", "text")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Records as they come from outside, and how they are prepared.

    A model that is used elsewhere needs it: the mean that was taken out in training has to be taken
    out there, too, and the columns of a table have to stand in the same order.

    Attributes:
        kind: ``"image"`` (bytes, or floats from 0 to 1), ``"table"``, ``"text"`` or ``"array"``.
        shape: of one record.
        dtype: of its numbers.
        mean: by channel or column, taken out of the record; empty for nothing.
        deviation: likewise, what is divided by.
        columns: names of the numbers of a table.

    Example:
        >>> table = Inputs("table", (1,), "float32", (2000.0,), (10.0,), ("year",))
        >>> table.prepared(jnp.array([[2010.0]])).tolist()
        [[1.0]]
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def spec(self) -> jax.ShapeDtypeStruct:
        """A batch of one record."""
        return jax.ShapeDtypeStruct((1, *self.shape), np.dtype(self.dtype))

    def prepared(self, x: Array) -> Array:
        """What the model takes, of records (batch, …); runs inside the compiled program."""
        if not self.mean:
            return x
        if self.kind == "table":
            return _standardised(x, self.mean, self.deviation)
        return scaled(self.mean, self.deviation)(None, {"x": x})["x"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inputs:
        """The way back."""
        made: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**made)


def _standardised(
    x: Float[Array, "batch columns"], mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Float[Array, "batch columns"]:
    # The mean in two parts: in float32 alone, that of a column of years is off by 0.0001. The rest
    # comes after the division, where the compiler cannot add the two up.
    exact, wide = np.array(mean, np.float64), np.array(deviation, np.float64)
    high = exact.astype(np.float32)
    parts = (high, wide, (exact - high) / wide)
    shift, divisor, rest = (jnp.asarray(part.astype(x.dtype))[None] for part in parts)
    return (x - shift) / divisor - rest
