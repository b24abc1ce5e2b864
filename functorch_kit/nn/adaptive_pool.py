"""Pooling to an output of a given size, whatever the size of the input."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from functorch_kit.nn.combinators import lambda_
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model


def adaptive_avg_pool(size: Sequence[int]) -> Model:
    """The mean of each of ``size`` windows that cover the input.

    Window i of an axis goes from ``floor(i n / size)`` to ``ceil((i + 1) n / size)``, as PyTorch's
    do: they overlap where the size does not divide n, and repeat elements where it exceeds n.

    Args:
        size: of the output, per spatial axis.

    Returns:
        A Model from (batch, *space, channels) to (batch, *size, channels).

    Raises:
        LayerError: no size, one below 1, or an input with another number of spatial axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> nn.adaptive_avg_pool((2,)).apply({}, (), x)[0][0, :, 0].tolist()
        [1.0, 3.0]
    """
    return _adaptive(tuple(size), "adaptive_avg_pool", _mean_along)


def adaptive_max_pool(size: Sequence[int]) -> Model:
    """The largest value of each of ``size`` windows that cover the input.

    Args:
        size: of the output, per spatial axis; see ``adaptive_avg_pool`` for the windows.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> nn.adaptive_max_pool((2,)).apply({}, (), x)[0][0, :, 0].tolist()
        [2.0, 4.0]
    """
    return _adaptive(tuple(size), "adaptive_max_pool", _max_along)


def _adaptive(size: tuple[int, ...], layer: str, along) -> Model:
    if not size or min(size) < 1:
        raise LayerError(f"{layer}: {size} is not one positive number per spatial axis")

    def pool(x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *out channels"]:
        if x.ndim != len(size) + 2:
            raise LayerError(f"{layer}: size {size} does not fit an input of shape {x.shape}")
        # A window of several axes is the product of its axes' windows: one axis after another.
        for axis, out in enumerate(size, start=1):
            if x.shape[axis] != out:
                x = along(x, axis, out)
        return x

    return lambda_(pool)


def _windows(length: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """First element of each window, and the one behind its last."""
    windows = np.arange(out)
    return windows * length // out, -(-(windows + 1) * length // out)


def _mean_along(x, axis: int, out: int):
    if x.shape[axis] % out == 0:
        return jnp.mean(_tiles(x, axis, out), axis + 1)
    starts, stops = _windows(x.shape[axis], out)
    places = np.arange(x.shape[axis])[:, None]
    share = ((places >= starts) & (places < stops)) / (stops - starts)
    y = jnp.tensordot(x, jnp.asarray(share, x.dtype), (axis, 0))
    return jnp.moveaxis(y, -1, axis)


def _max_along(x, axis: int, out: int):
    if x.shape[axis] % out == 0:
        return jnp.max(_tiles(x, axis, out), axis + 1)
    starts, stops = _windows(x.shape[axis], out)
    # Shorter windows repeat their last element, which changes no maximum.
    within = np.arange((stops - starts).max())
    places = np.minimum(starts[:, None] + within, stops[:, None] - 1)
    return jnp.max(jnp.take(x, places, axis), axis + 1)


def _tiles(x, axis: int, out: int):
    return x.reshape(*x.shape[:axis], out, x.shape[axis] // out, *x.shape[axis + 1 :])
