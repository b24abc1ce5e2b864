"""Functions without parameters, as Model values: ``nn.relu``, not ``nn.relu()``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from functorch_kit.nn.combinators import lambda_
from functorch_kit.types import Model

identity = lambda_(lambda x: x)
relu = lambda_(jax.nn.relu)
gelu = lambda_(jax.nn.gelu)
elu = lambda_(jax.nn.elu)
silu = lambda_(jax.nn.silu)
softplus = lambda_(jax.nn.softplus)
tanh = lambda_(jnp.tanh)
sigmoid = lambda_(jax.nn.sigmoid)
softmax = lambda_(jax.nn.softmax)
log_softmax = lambda_(jax.nn.log_softmax)


def leaky_relu(negative_slope: float = 0.01) -> Model:
    """``x`` where positive, ``negative_slope * x`` elsewhere.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.leaky_relu(0.5).apply({}, (), jnp.array([-2.0, 3.0]))[0].tolist()
        [-1.0, 3.0]
    """
    return lambda_(lambda x: jax.nn.leaky_relu(x, negative_slope))


def flatten() -> Model:
    """Join all axes but the first: (batch, ...) to (batch, n).

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.flatten().apply({}, (), jnp.ones((2, 3, 4)))[0].shape
        (2, 12)
    """
    return lambda_(lambda x: x.reshape(x.shape[0], -1))
