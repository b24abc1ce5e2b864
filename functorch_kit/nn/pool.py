"""Pooling over the spatial axes of (batch, *space, channels)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.nn.combinators import lambda_
from functorch_kit.nn.conv import Padding, explicit_padding, out_space
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model


def max_pool(
    window: Sequence[int], *, strides: Sequence[int] | None = None, padding: Padding = "VALID"
) -> Model:
    """The largest value of each window.

    Windows that tile the input exactly are a reshape and a maximum, whose gradient is several times
    faster on a CPU than that of XLA's window reduction; there, tied maxima share the gradient. In
    windows that overlap, the first of them takes it.

    Args:
        window: size per spatial axis.
        strides: step per spatial axis; the window's size if None.
        padding: as in ``conv``; padding never wins.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> nn.max_pool((2, 2)).apply({}, (), x)[0][0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    return _pool(window, strides, padding, jnp.max, _window_max)


def avg_pool(
    window: Sequence[int], *, strides: Sequence[int] | None = None, padding: Padding = "VALID"
) -> Model:
    """The mean of each window, over the elements that are not padding.

    Args:
        window: size per spatial axis.
        strides: step per spatial axis; the window's size if None.
        padding: as in ``conv``.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.avg_pool((2,)).apply({}, (), jnp.arange(4.0).reshape(1, 4, 1))[0][0, :, 0].tolist()
        [0.5, 2.5]
    """
    return _pool(window, strides, padding, jnp.mean, _window_mean)


def global_avg_pool() -> Model:
    """The mean over all spatial axes: (batch, *space, channels) to (batch, channels).

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.global_avg_pool().apply({}, (), jnp.ones((2, 4, 4, 3)))[0].shape
        (2, 3)
    """
    return lambda_(lambda x: jnp.mean(x, axis=tuple(range(1, x.ndim - 1))))


def global_max_pool() -> Model:
    """The largest value over all spatial axes: (batch, *space, channels) to (batch, channels).

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.global_max_pool().apply({}, (), jnp.ones((2, 4, 4, 3)))[0].shape
        (2, 3)
    """
    return lambda_(lambda x: jnp.max(x, axis=tuple(range(1, x.ndim - 1))))


def _pool(window, strides, padding, reduce_tiles, reduce_windows) -> Model:
    window = tuple(window)
    strides = window if strides is None else tuple(strides)
    if len(strides) != len(window):
        raise LayerError(f"pooling: strides {strides} do not fit the window {window}")

    def pool(x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *out channels"]:
        space = x.shape[1:-1]
        if len(space) != len(window):
            raise LayerError(f"pooling: window {window} does not fit an input of shape {x.shape}")
        ones = (1,) * len(window)
        pads = explicit_padding(padding, space, window, strides, ones)
        out_space(space, window, strides, pads, ones)  # refuses an empty output
        tiled = strides == window and not any(before or after for before, after in pads)
        if tiled and not any(size % w for size, w in zip(space, window, strict=True)):
            tiles = [n for size, w in zip(space, window, strict=True) for n in (size // w, w)]
            inner = tuple(range(2, 2 + 2 * len(window), 2))
            return reduce_tiles(x.reshape(x.shape[0], *tiles, x.shape[-1]), axis=inner)
        return reduce_windows(x, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))

    return lambda_(pool)


# XLA:CPU spreads the gradient of a window reduction one element after another. Noting which element
# won, and comparing with that, takes a fifth of its processor time for ResNet's windows of 3 × 3 at
# steps of 2 (84 against 396 ms, jax 0.10.2 and 0.12), a tenth at steps of 1 (16 against 174). Each
# element of a window is a slice for the compiler.
_WINNER_SLICES = 25


def _window_max(x, window, strides, pads):
    if jax.default_backend() == "cpu" and math.prod(window) <= _WINNER_SLICES:
        return _noting_winners(x, window, strides, pads)
    return _reduced_max(x, window, strides, pads)


def _reduced_max(x, window, strides, pads):
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, strides, pads)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _noting_winners(x, window, strides, pads):
    return _reduced_max(x, window, strides, pads)


@_noting_winners.defjvp
def _follow_winners(window, strides, pads, primals, tangents):
    first, *others = _elements(primals[0], window, strides, pads, -np.inf)
    highest, winner = first, jnp.zeros(first.shape, jnp.int8)
    for place, value in enumerate(others, 1):
        wins = (value > highest) | (value != value)  # NaN is never lost
        highest, winner = jnp.where(wins, value, highest), jnp.where(wins, np.int8(place), winner)
    slopes = _elements(tangents[0], window, strides, pads, 0)
    along = [jnp.where(winner == place, slope, 0) for place, slope in enumerate(slopes)]
    return highest, functools.reduce(lax.add, along)


def _elements(x, window, strides, pads, padding):
    """The first element of every window, the second of every window, and so on."""
    out = [
        (size + before + after - w) // step + 1
        for size, (before, after), w, step in zip(x.shape, pads, window, strides, strict=True)
    ]
    # Windows may end before the padding, or the input, does.
    ends = [(n - 1) * step + w for n, w, step in zip(out, window, strides, strict=True)]
    cut = [end - before - size for end, (before, _), size in zip(ends, pads, x.shape, strict=True)]
    edges = [(before, after, 0) for (before, _), after in zip(pads, cut, strict=True)]
    padded = lax.pad(x, np.array(padding, x.dtype), edges)
    for offset in itertools.product(*map(range, window)):
        limits = [o + (n - 1) * step + 1 for o, n, step in zip(offset, out, strides, strict=True)]
        yield lax.slice(padded, offset, limits, strides)


def _window_mean(x, window, strides, pads):
    zero = np.zeros((), x.dtype)
    total = lax.reduce_window(x, zero, lax.add, window, strides, pads)
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    return total / lax.reduce_window(ones, zero, lax.add, window, strides, pads)
