"""RandAugment: a few random changes of an image, all of one strength (Cubuk et al., 2020)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.data.augment import each_image
from functorch_kit.data.transformed import Transform

OPERATIONS = (
    "identity", "rotate", "shear_x", "shear_y", "translate_x", "translate_y", "autocontrast",
    "equalize", "solarize", "posterize", "color", "contrast", "brightness", "sharpness",
)  # fmt: skip
"""The fourteen changes, each as likely as another."""
_GEOMETRIC = 6
_LEVELS = 256


def rand_augment(layers: int = 2, magnitude: int = 9) -> Transform:
    """``layers`` changes of each image, drawn with replacement, of one strength.

    Args:
        layers: how many changes follow each other.
        magnitude: from 0 (none to speak of) to 30.

    Returns:
        A transform of ``x`` (batch, height, width, channels), floats from 0 to 1, before they are
        normalised.

    Example:
        >>> from jax.random import key, split, uniform
        >>> x = uniform(key(1), (4, 8, 8, 3))
        >>> y = rand_augment(2, 9)(split(key(0), 4), {"x": x})["x"]
        >>> y.shape, bool(((y >= 0) & (y <= 1)).all())
        ((4, 8, 8, 3), True)
    """
    strength = magnitude / 30

    def change(key: Any, image: Any) -> Any:
        def layer(number: Any, image: Any) -> Any:
            return _one(jax.random.fold_in(key, number), image, strength)

        return jax.lax.fori_loop(0, layers, layer, image)

    return each_image(change)


def changed(operation: str, image: Any, strength: float) -> Any:
    """One change by name.

    Args:
        operation: one of ``OPERATIONS``.
        image: (height, width, channels), floats from 0 to 1.
        strength: from -1 to 1; the sign means nothing where there is no direction.

    Example:
        >>> image = changed("solarize", jnp.array([0.25, 0.75]).reshape(1, 2, 1), 0.5)
        >>> image.reshape(2).tolist()
        [0.25, 0.25]
    """
    choice = jnp.array(OPERATIONS.index(operation))
    return _applied(choice, image, jnp.array(strength, image.dtype))


def _one(key: Any, image: Any, strength: float) -> Any:
    for_choice, for_sign = jax.random.split(key)
    choice = jax.random.randint(for_choice, (), 0, len(OPERATIONS))
    sign = jnp.where(jax.random.bernoulli(for_sign), 1, -1).astype(image.dtype)
    return _apply(choice, image, sign * strength)


def _apply(choice: Any, image: Any, strength: Any) -> Any:
    # Under vmap every branch is computed and one is chosen: all six moves share one resampling.
    moved = _resampled(image, _matrix(choice, strength, image.shape))
    colours = [
        _autocontrast, _equalize, _solarize, _posterize, _color, _contrast, _brightness, _sharpness,
    ]  # fmt: skip
    for place, colour in enumerate(colours):
        wanted = choice == _GEOMETRIC + place
        moved = jnp.where(wanted, colour(image, strength), moved)
    return jnp.clip(moved, 0, 1)


_applied = jax.jit(_apply)


def _matrix(choice: Any, strength: Any, shape: tuple[int, ...]) -> Any:
    """Where a place of the result comes from, as a 2×3 matrix over (row, column, 1)."""
    angle = strength * math.radians(30)
    one, zero = jnp.ones((), strength.dtype), jnp.zeros((), strength.dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shear, down, right = 0.3 * strength, 0.45 * strength * shape[0], 0.45 * strength * shape[1]
    matrices = [
        [one, zero, zero, zero, one, zero],
        [cos, -sin, zero, sin, cos, zero],
        [one, zero, zero, shear, one, zero],
        [one, shear, zero, zero, one, zero],
        [one, zero, zero, zero, one, right],
        [one, zero, down, zero, one, zero],
    ]
    table = jnp.stack([jnp.stack(row) for row in matrices])
    return table[jnp.minimum(choice, _GEOMETRIC) % _GEOMETRIC].reshape(2, 3)


def _resampled(image: Any, matrix: Any) -> Any:
    """The image at other places, between four pixels each; grey where it ends."""
    height, width, _ = image.shape
    middle = ((height - 1) / 2, (width - 1) / 2)
    grid = jnp.meshgrid(
        jnp.arange(height, dtype=image.dtype) - middle[0],
        jnp.arange(width, dtype=image.dtype) - middle[1],
        indexing="ij",
    )
    row, column = (
        matrix[axis, 0] * grid[0] + matrix[axis, 1] * grid[1] + matrix[axis, 2] + middle[axis]
        for axis in (0, 1)
    )
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)

    def pixels(rows: Any, columns: Any) -> Any:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = image[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside[..., None], found, 0.5)

    above = (1 - right) * pixels(top, left) + right * pixels(top, left + 1)
    below = (1 - right) * pixels(top + 1, left) + right * pixels(top + 1, left + 1)
    return (1 - down) * above + down * below


def _autocontrast(image: Any, strength: Any) -> Any:
    low, high = (f(image, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def _equalize(image: Any, strength: Any) -> Any:
    """Each channel's levels made equally frequent, by its cumulative histogram."""
    level = jnp.clip(jnp.round(image * (_LEVELS - 1)), 0, _LEVELS - 1).astype(jnp.int32)

    def of_channel(channel: Any) -> Any:
        counts = jnp.zeros(_LEVELS, jnp.int32).at[channel.reshape(-1)].add(1)
        below = jnp.cumsum(counts) - counts
        # The top level maps to 1, the lowest to 0; a channel of one level stays as it is.
        top = jnp.max(jnp.where(counts > 0, below, 0))
        spread = below[channel].astype(image.dtype) / jnp.maximum(top, 1).astype(image.dtype)
        return jnp.where(top > 0, spread, channel.astype(image.dtype) / (_LEVELS - 1))

    return jax.vmap(of_channel, in_axes=-1, out_axes=-1)(level)


def _solarize(image: Any, strength: Any) -> Any:
    return jnp.where(image >= 1 - jnp.abs(strength), 1 - image, image)


def _posterize(image: Any, strength: Any) -> Any:
    levels = 2.0 ** (8 - jnp.round(4 * jnp.abs(strength)))
    return jnp.floor(jnp.minimum(image * levels, levels - 1)) / (levels - 1)


def _blended(image: Any, other: Any, strength: Any) -> Any:
    return other + (1 + 0.9 * strength) * (image - other)


def _grey(image: Any) -> Any:
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    return jnp.sum(image * jnp.array([[[0.299, 0.587, 0.114]]], image.dtype), -1, keepdims=True)


def _color(image: Any, strength: Any) -> Any:
    return _blended(image, jnp.broadcast_to(_grey(image), image.shape), strength)


def _contrast(image: Any, strength: Any) -> Any:
    return _blended(image, jnp.mean(_grey(image)), strength)


def _brightness(image: Any, strength: Any) -> Any:
    return _blended(image, jnp.zeros((), image.dtype), strength)


def _sharpness(image: Any, strength: Any) -> Any:
    """Towards or away from a 3×3 blur; the outermost pixels stay as they are."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    rows = [image[i : height - 2 + i] for i in range(3)]
    around = sum(row[:, j : width - 2 + j] for row in rows for j in range(3))
    blurred = (around + 4 * image[1:-1, 1:-1]) / 13
    return _blended(image, image.at[1:-1, 1:-1].set(blurred), strength)
