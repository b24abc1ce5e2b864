"""How much each example, or each of its parts, counts."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from functorch_kit.types import Batch, wide_float


def example_weight(batch: Batch, like: Array) -> Array:
    """A batch's weights, one for each loss; 1 where it has none.

    Args:
        batch: its ``weight``, if it has one, is (batch,) or has more of the axes of the losses.
        like: an array of the losses' shape; the weights take its dtype, or float32 if that has
            fewer bits.

    Example:
        >>> import jax.numpy as jnp
        >>> example_weight({"weight": jnp.array([1, 0])}, jnp.zeros((2, 3))).tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    like = wide_float(like)
    if "weight" not in batch:
        return jnp.ones_like(like)
    weight = batch["weight"].astype(like.dtype)
    weight = weight.reshape(weight.shape + (1,) * (like.ndim - weight.ndim))
    return jnp.broadcast_to(weight, like.shape)
