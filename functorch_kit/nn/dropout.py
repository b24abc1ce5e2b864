"""Dropout, whose rate may be a traced hyperparameter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from functorch_kit.nn.scope import current_path
from functorch_kit.types import Model


def dropout(rate: float | jax.Array) -> Model:
    """Set elements to zero with probability ``rate`` in training, and scale up the others.

    Srivastava et al., 2014. In evaluation the input passes unchanged.

    Args:
        rate: probability of dropping, from 0 up to but not including 1; an array of shape () may be
            a hyperparameter that changes without compiling again.

    Raises:
        ValueError: a rate outside [0, 1), or training without a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> y, _ = nn.dropout(0.5).apply((), (), jnp.ones(6), key=jax.random.key(0), train=True)
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]
    """
    if not isinstance(rate, Tracer) and not 0 <= rate < 1:
        raise ValueError(f"dropout: rate {rate} is not in [0, 1)")

    def apply(
        params, model_state, x: Float[Array, "*shape"], *, key=None, train=False
    ) -> tuple[Float[Array, "*shape"], tuple]:
        if not train or (isinstance(rate, int | float) and rate == 0):
            return x, ()
        if key is None:
            raise ValueError(
                f"dropout at {current_path()!r} needs a key: pass key= when train=True"
            )
        # Drawn in at least 32 bits: bfloat16 has 256 steps between 0 and 1.
        keep = jnp.asarray(1 - rate, jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
        mask = jax.random.bernoulli(key, keep, x.shape)
        return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros_like(x)), ()

    return Model(lambda key, x_spec: ({}, ()), apply)
