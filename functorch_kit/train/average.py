"""An exponential moving average of the parameters, with its bias corrected."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.types import Params, wide_float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """A weighted sum of past parameters and the sum of its weights.

    The sum starts at zero, so the corrected average after one step is that step's parameters; it
    is exact also where the decay changes on the way.

    Attributes:
        total: sum of weight times parameters, in at least 32 bits: in bfloat16, 0.999 is 1.
        weight: sum of the weights, float32 ().

    Example:
        >>> import jax.numpy as jnp
        >>> average = empty_average({"w": jnp.ones(1)})
        >>> for value in (1.0, 3.0):
        ...     average = average.updated({"w": jnp.array([value])}, 0.5)
        >>> round(float(average.params()["w"][0]), 4)  # (1/4 * 1 + 1/2 * 3) / (3/4)
        2.3333
    """

    total: Any
    weight: Any

    def updated(self, params: Params, decay: Any) -> Average:
        """The average with one more set of parameters in it."""

        def mix(old, new):
            keep = jnp.asarray(decay, old.dtype)
            return keep * old + (1 - keep) * new.astype(old.dtype)

        one = jnp.ones_like(self.weight)
        return Average(jax.tree.map(mix, self.total, params), mix(self.weight, one))

    def params(self) -> Params:
        """The corrected average; zeros before the first step."""
        weight = jnp.where(self.weight > 0, self.weight, 1)
        return jax.tree.map(lambda leaf: leaf / weight.astype(leaf.dtype), self.total)


def empty_average(params: Params) -> Average:
    """The average of no parameters yet.

    Example:
        >>> import jax.numpy as jnp
        >>> float(empty_average({"w": jnp.ones(1)}).weight)
        0.0
    """
    dtype = jnp.result_type(float)
    total = jax.tree.map(lambda leaf: wide_float(jnp.zeros_like(leaf)), params)
    return Average(total, jnp.zeros((), dtype))
