"""Who reads whom: masks of attention, true where a position may read.

Axes in the names of arrays as in ``attention``; an axis of 1 stands for all.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Integer

from functorch_kit.nn.errors import LayerError

Sees = np.ndarray | jax.Array


def in_order(length: int, read: int, causal: bool, window: int | None) -> Sees | None:
    """By place in the row, shape (1, 1, L, M): those before, and no farther than a window; or None.

    Example:
        >>> in_order(3, 3, causal=True, window=2)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    if not causal and window is None:
        return None
    back_LxM = np.arange(read - length, read)[:, None] - np.arange(read)
    sees = back_LxM >= 0 if causal else np.ones_like(back_LxM, bool)
    if window is not None:
        sees &= np.abs(back_LxM) < window
    return sees[None, None]


def by_position(
    positions_BxL: Integer[Array, "batch length"], slots: int, window: int | None
) -> Sees:
    """By position among the slots of a cache: up to its own, and no farther back than a window.

    Example:
        >>> import jax.numpy as jnp
        >>> by_position(jnp.array([[2]]), 4, None)[0, 0].astype(int).tolist()
        [[1, 1, 1, 0]]
    """
    position = positions_BxL[:, None, :, None]
    slot = np.arange(slots, dtype=np.int32)[None, None, None]
    sees = slot <= position.astype(np.int32)
    return sees if window is None else sees & (slot > position.astype(np.int32) - window)


def as_given(given: Mapping[str, Array]) -> list[Sees]:
    """Those that came beside the input: ``segments`` (B, L), ``mask`` (B, M) or (B, L, M).

    Example:
        >>> import jax.numpy as jnp
        >>> (sees,) = as_given({"segments": jnp.array([[1, 1, 2]])})
        >>> sees[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    sees: list[Sees] = []
    if "segments" in given:
        segments_BxL = given["segments"]
        sees.append(segments_BxL[:, None, :, None] == segments_BxL[:, None, None, :])
    if "mask" in given:
        mask = given["mask"]
        if mask.dtype != bool or mask.ndim not in (2, 3):
            raise LayerError(
                f"attention: mask is {mask.dtype}{list(mask.shape)}: give booleans (batch, read) "
                "or (batch, length, read), true where a position may be read"
            )
        sees.append(mask[:, None, None] if mask.ndim == 2 else mask[:, None])
    return sees
