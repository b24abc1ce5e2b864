"""How much each example, or each of its parts, counts."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from functorch_kit.types import Batch


def example_weight(batch: Batch, shape: tuple[int, ...], dtype) -> Array:
    """A batch's weights, one for each loss; 1 where it has none.

    Args:
        batch: its ``weight``, if it has one, is (batch,) or has more of the axes of ``shape``.
        shape: of the losses that are weighed.
        dtype: of the result.

    Example:
        >>> import jax.numpy as jnp
        >>> example_weight({"weight": jnp.array([1, 0])}, (2, 3), jnp.float32).tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    if "weight" not in batch:
        return jnp.ones(shape, dtype)
    weight = batch["weight"].astype(dtype)
    weight = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
    return jnp.broadcast_to(weight, shape)
