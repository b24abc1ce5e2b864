"""Masked autoencoding: guess what was hidden from what was not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from functorch_kit import metrics
from functorch_kit.train.objectives.parts import example_keys
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Key, Model, Objective, Outcome, wide_float


def masked_autoencoder(
    model: Model,
    *,
    patch: Sequence[int],
    rate: float | jax.Array = 0.75,
    error: Callable[[Array], Array] = jnp.square,
    hide: Callable[[Array, Array], object] = lambda x, mask: jnp.where(mask, 0, x),
) -> Objective:
    """The error of what the model says of hidden patches, for each hidden number.

    He et al., 2022, in the plain form of Xie et al., 2022 (SimMIM): the model sees the whole input
    with patches blotted out. Each example gets a mask of its own, in training another at every
    step; in evaluation it follows from the example alone.

    Args:
        model: from ``hide(x, mask)`` to an array of x's shape.
        patch: size of a patch along the axes of x that follow the first, such as (2, 2) for images
            (batch, height, width, channels); the axes left over are hidden together.
        rate: share of an example's patches that is hidden, rounded up; may be traced.
        error: of a difference, element by element: ``jnp.square``, ``jnp.abs``.
        hide: makes the model's input of x and a mask of x's shape, True where hidden; zeros if not
            given. ``lambda x, mask: {"x": x * ~mask, "mask": mask}`` tells hidden from black.

    Returns:
        An objective of batches with ``x`` and optionally ``weight`` (batch,). Its metric is the
        ``absolute_error`` for each hidden number.

    Raises:
        ValueError: patches that do not divide x, or outputs of another shape than x.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> batch = {"x": jnp.full((1, 4, 4), 3.0)}
        >>> objective = train.masked_autoencoder(nn.identity, patch=(2, 2), rate=0.5)
        >>> outcome = objective({}, (), batch, key=None, train=False)
        >>> float(outcome.loss_sum), float(outcome.weight)  # 8 of 16 numbers are off by 3
        (72.0, 8.0)
    """

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        x = batch["x"]
        mask_key = None if key is None else jax.random.fold_in(key, 0)
        mask = patch_mask(example_keys(mask_key, x, train=train), x, patch, rate)
        y, model_state = model.apply(params, model_state, hide(x, mask), key=key, train=train)
        if y.shape != x.shape:
            raise ValueError(f"masked_autoencoder: outputs are {y.shape}, inputs {x.shape}")
        difference = wide_float(y) - wide_float(x)
        weight = jnp.where(mask, example_weight(batch, difference), 0)
        mean = metrics.weighted_mean(error(difference), weight)
        absolute = metrics.weighted_mean(jnp.abs(difference), weight)
        return Outcome(mean.total, mean.weight, model_state, {"absolute_error": absolute})

    return objective


def patch_mask(
    keys: Key, x: Float[Array, "batch *shape"], patch: Sequence[int], rate: float | jax.Array
) -> Bool[Array, "batch *shape"]:
    """Masks in which whole patches are True, the same number of them in each example.

    Args:
        keys: one for each example (batch,).
        x: gives the shape (batch, ...).
        patch: size of a patch along the axes after the first.
        rate: share of the patches, rounded up; may be traced.

    Raises:
        ValueError: patches that do not divide x.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> mask = patch_mask(jax.random.split(jax.random.key(0), 1), jnp.ones((1, 6)), (2,), 0.3)
        >>> int(mask.sum()), bool((mask[:, ::2] == mask[:, 1::2]).all())
        (2, True)
    """
    space = x.shape[1 : 1 + len(patch)]
    if len(space) < len(patch) or any(n % size for n, size in zip(space, patch, strict=True)):
        raise ValueError(f"masked_autoencoder: patches {tuple(patch)} do not divide {x.shape[1:]}")
    grid = [n // size for n, size in zip(space, patch, strict=True)]
    count = math.prod(grid)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    # In float32 a product such as 0.6 × 25 comes out above 15, and would be rounded up to 16.
    hidden = jnp.asarray(rate, jnp.float32) * count - 1e-3
    mask = rank.astype(jnp.float32) < hidden
    mask = mask.reshape(-1, *grid)
    for axis, size in enumerate(patch, start=1):
        mask = jnp.repeat(mask, size, axis=axis)
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
