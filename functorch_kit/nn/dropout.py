"""Dropout of elements and of whole examples, at rates that may be traced hyperparameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.scope import current_path
from functorch_kit.types import Model


def dropout(rate: float | jax.Array) -> Model:
    """Set elements to zero with probability ``rate`` in training, and scale up the others.

    Srivastava et al., 2014. In evaluation the input passes unchanged.

    Args:
        rate: probability of dropping, from 0 up to but not including 1; an array of shape () may be
            a hyperparameter that changes without compiling again.

    Raises:
        LayerError: a rate outside [0, 1), or training without a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> y, _ = nn.dropout(0.5).apply((), (), jnp.ones(6), key=jax.random.key(0), train=True)
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]
    """
    _check_rate(rate, "dropout")

    def apply(
        params, model_state, x: Float[Array, "*shape"], *, key=None, train=False
    ) -> tuple[Float[Array, "*shape"], tuple]:
        return _drop(x, rate, x.shape, key, train, "dropout"), ()

    return Model(lambda key, x_spec: ({}, ()), apply)


def stochastic_depth(rate: float | jax.Array) -> Model:
    """Set whole examples to zero with probability ``rate`` in training, and scale up the others.

    Huang et al., 2016; also called drop path. At the end of a residual block's body it leaves the
    shortcut alone.

    Args:
        rate: as in ``dropout``.

    Returns:
        A Model from (batch, ...) to the same shape.

    Raises:
        LayerError: a rate outside [0, 1), or training without a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.stochastic_depth(0.5)
        >>> y, _ = layer.apply((), (), jnp.ones((4, 2)), key=jax.random.key(1), train=True)
        >>> all(row in ([0.0, 0.0], [2.0, 2.0]) for row in y.tolist())
        True
    """
    _check_rate(rate, "stochastic_depth")

    def apply(
        params, model_state, x: Float[Array, "batch *shape"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *shape"], tuple]:
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return _drop(x, rate, shape, key, train, "stochastic_depth"), ()

    return Model(lambda key, x_spec: ({}, ()), apply)


def _check_rate(rate, layer: str) -> None:
    if not isinstance(rate, Tracer) and not 0 <= rate < 1:
        raise LayerError(f"{layer}: rate {rate} is not in [0, 1)")


def _drop(x, rate, shape, key, train, layer: str):
    if not train or (isinstance(rate, int | float) and rate == 0):
        return x
    if key is None:
        raise LayerError(f"{layer} at {current_path()!r} needs a key: pass key= when train=True")
    # Drawn in at least 32 bits: bfloat16 has 256 steps between 0 and 1.
    keep = jnp.asarray(1 - rate, jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
    mask = jax.random.bernoulli(key, keep, shape)
    return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros_like(x))
