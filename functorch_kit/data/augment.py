"""Transforms of images, on the device: crop, flip, normalise, cutout, and mixtures of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from functorch_kit.data.transformed import Transform
from functorch_kit.types import Batch

Image = Float[Array, "height width channels"]


def chain(*transforms: Transform) -> Transform:
    """Transforms one after another, each with keys of its own.

    Args:
        *transforms: ``transform(keys, batch) -> batch``; ``keys`` (batch,) or None.

    Example:
        >>> double = lambda keys, batch: {**batch, "x": 2 * batch["x"]}
        >>> chain(double, double)(None, {"x": jnp.ones(2)})["x"].tolist()
        [4.0, 4.0]
    """

    def transform(keys: Any, batch: Batch) -> Batch:
        for place, each in enumerate(transforms):
            own = None if keys is None else jax.vmap(lambda key, p=place: _folded(key, p))(keys)
            batch = each(own, batch)
        return batch

    return transform


def scaled(mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> Transform:
    """Bytes to float32 from 0 to 1, then minus ``mean`` and divided by ``std``, by channel.

    Args:
        mean: one for each channel, or one for all.
        std: likewise.

    Example:
        >>> x = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
        >>> scaled(mean=(0.5,), std=(0.25,))(None, {"x": x})["x"].reshape(()).item()
        2.0
    """

    def transform(keys: Any, batch: Batch) -> Batch:
        x = as_floats(batch["x"])
        axes = (1,) * (x.ndim - 1)
        shift, factor = (jnp.array(v, x.dtype).reshape(*axes, -1) for v in (mean, std))
        return {**batch, "x": (x - shift) / factor}

    return transform


def as_floats(x: Float[Array, "..."] | UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Bytes as float32 from 0 to 1; floats as they are.

    Example:
        >>> as_floats(jnp.array([0, 255], jnp.uint8)).tolist()
        [0.0, 1.0]
    """
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def each_image(change: Callable[[Any, Any], Any]) -> Transform:
    """A transform of ``x`` from a function of one key and one image.

    Args:
        change: ``change(key, image) -> image``.

    Example:
        >>> from jax.random import key, split
        >>> brighter = each_image(lambda key, image: image + jax.random.uniform(key))
        >>> brighter(split(key(0), 2), {"x": jnp.zeros((2, 1, 1, 1))})["x"].shape
        (2, 1, 1, 1)
    """

    def transform(keys: Any, batch: Batch) -> Batch:
        return {**batch, "x": jax.vmap(change)(keys, batch["x"])}

    return transform


def random_crop(padding: int) -> Transform:
    """Zeros all around, then a part of the old size at a random place (He et al., 2015).

    Args:
        padding: pixels on each side; an image moves by as many at most.

    Example:
        >>> from jax.random import key, split
        >>> x = jnp.ones((4, 3, 3, 1))
        >>> moved = random_crop(1)(split(key(0), 4), {"x": x})["x"]
        >>> moved.shape, set(moved.sum((1, 2, 3)).tolist()) <= {4.0, 6.0, 9.0}  # of nine
        ((4, 3, 3, 1), True)
    """

    def crop(key: Any, image: Any) -> Any:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)

    return each_image(crop)


def random_flip() -> Transform:
    """Left and right exchanged, in every second image on average.

    Example:
        >>> from jax.random import key, split
        >>> x = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1).repeat(50, 0)
        >>> flipped = random_flip()(split(key(0), 50), {"x": x})["x"][:, 0, 0, 0]
        >>> 10 < float(flipped.sum()) < 40
        True
    """

    def flip(key: Any, image: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)

    return each_image(flip)


def cutout(size: int) -> Transform:
    """A square of zeros around a random place, cut off at the edges (DeVries and Taylor, 2017).

    It comes after normalisation, so that zero is the mean.

    Args:
        size: side of the square, in pixels.

    Example:
        >>> from jax.random import key, split
        >>> cut = cutout(2)(split(key(0), 8), {"x": jnp.ones((8, 4, 4, 1))})["x"]
        >>> sorted(set((16 - cut.sum((1, 2, 3))).astype(int).tolist()))
        [2, 4]
    """

    def cut(key: Any, image: Any) -> Any:
        inside = _box(key, image.shape[:2], jnp.array(size), jnp.array(size))
        return jnp.where(inside[..., None], jnp.zeros((), image.dtype), image)

    return each_image(cut)


def mixtures(*, mixup: float = 0.0, cutmix: float = 0.0) -> Transform:
    """Two examples of the batch in one, and the share of each in the loss.

    Mixup adds two images (Zhang et al., 2018); cutmix puts a rectangle of one into the other (Yun
    et al., 2019). The share is drawn from Beta(alpha, alpha) for each example; its partner is its
    opposite in the batch. Where both are on, each example has one of them by the toss of a coin.

    Args:
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.

    Returns:
        A transform that adds ``y_other``, the partner's class, and ``share`` (batch,), that of
        ``y``, which ``train.classification`` reckons with.

    Example:
        >>> from jax.random import key, split
        >>> x = jnp.arange(2.0).reshape(2, 1, 1, 1)
        >>> mixed = mixtures(mixup=1.0)(split(key(0), 2), {"x": x, "y": jnp.array([0, 1])})
        >>> bool(jnp.allclose(mixed["x"][1, 0, 0, 0], mixed["share"][1])), mixed["y_other"].tolist()
        (True, [1, 0])
    """

    def mixed_up(key: Any, image: Any, other: Any) -> tuple[Any, Any]:
        share = jax.random.beta(key, mixup, mixup).astype(image.dtype)
        return share * image + (1 - share) * other, share

    def cut_in(key: Any, image: Any, other: Any) -> tuple[Any, Any]:
        for_share, for_place = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(for_share, cutmix, cutmix))
        height, width = image.shape[:2]
        high, wide = (jnp.round(side * n).astype(jnp.int32) for n in (height, width))
        inside = _box(for_place, (height, width), high, wide)
        # What counts is what is seen: the box may have been cut off at an edge.
        share = 1 - jnp.sum(inside, dtype=jnp.int32).astype(image.dtype) / (height * width)
        return jnp.where(inside[..., None], other, image), share

    def one(key: Any, image: Any, other: Any) -> tuple[Any, Any]:
        if not cutmix:
            return mixed_up(key, image, other)
        if not mixup:
            return cut_in(key, image, other)
        toss, key = jax.random.split(key)
        pairs = zip(mixed_up(key, image, other), cut_in(key, image, other), strict=True)
        heads = jax.random.bernoulli(toss)
        image, share = (jnp.where(heads, a, b) for a, b in pairs)
        return image, share

    def transform(keys: Any, batch: Batch) -> Batch:
        x, share = jax.vmap(one)(keys, batch["x"], batch["x"][::-1])
        return {**batch, "x": x, "y_other": batch["y"][::-1], "share": share.astype(jnp.float32)}

    return transform


def _box(key: Any, sides: tuple[int, int], high: Any, wide: Any) -> Any:
    """A mask that is true in a rectangle around a uniform place, cut off at the edges."""
    height, width = sides
    row, column = (
        jax.random.randint(each, (), 0, side)
        for each, side in zip(jax.random.split(key), sides, strict=True)
    )
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    top, left = row - high // 2, column - wide // 2
    in_rows = (rows >= top) & (rows < top + high)
    return in_rows & (columns >= left) & (columns < left + wide)


def _folded(key: Any, place: int) -> Any:
    return jax.random.fold_in(key, place)
