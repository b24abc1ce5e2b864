"""Clipping of gradients, before an optimizer sees them."""

from __future__ import annotations

from typing import Any

import optax


def clip(
    *, norm: Any = None, value: Any = None, adaptive: Any = None
) -> optax.GradientTransformation:
    """Clip gradients by each of the ways that is given: by value, adaptively, by global norm.

    In this order, so that the norm of what comes out is never larger than ``norm``. It comes before
    an optimizer: ``optax.chain(clip(norm=1.0), optax.adam(1e-3))``.

    Args:
        norm: the largest global norm; a larger gradient is scaled down as a whole. May be traced,
            as the others.
        value: the largest absolute value of an entry.
        adaptive: the largest ratio of the norm of a unit's gradient to that of its weights
            (Brock et al., 2021); a unit is an output of a layer, and norms of weights count as
            0.001 at least.

    Returns:
        An optax transformation; one that changes nothing if nothing is given.

    Example:
        >>> import jax.numpy as jnp
        >>> gradient = jnp.array([3.0, 4.0])
        >>> for clipping in (clip(norm=1.0), clip(value=3.5), clip()):
        ...     update, _ = clipping.update(gradient, clipping.init(gradient))
        ...     print([round(float(entry), 2) for entry in update])
        [0.6, 0.8]
        [3.0, 3.5]
        [3.0, 4.0]
    """
    parts = [
        *([] if value is None else [optax.clip(value)]),
        *([] if adaptive is None else [optax.adaptive_grad_clip(adaptive)]),
        *([] if norm is None else [optax.clip_by_global_norm(norm)]),
    ]
    return optax.chain(*parts) if parts else optax.identity()
