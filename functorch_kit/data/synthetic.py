"""Images made by a formula: any size, learnable, no file."""

from __future__ import annotations

import math

import numpy as np

from functorch_kit.data.arrays import arrays
from functorch_kit.data.pipeline import Data


def synthetic_images(
    *,
    batch_size: int = 64,
    seed: int = 0,
    count: int = 2048,
    shape: tuple[int, int, int] = (64, 64, 3),
    classes: int = 10,
    noise: float = 0.5,
) -> Data:
    """Striped images whose class is the angle of the stripes, under Gaussian noise.

    Args:
        batch_size: records in a training batch.
        seed: of the training order; the images are the same for every seed.
        count: number of images.
        shape: height, width and channels.
        classes: number of angles, evenly spaced over half a turn.
        noise: standard deviation of the noise; the stripes have amplitude 1.

    Returns:
        Data with ``x`` (n, *shape) float32 and ``y`` (n,) int32, split 70/10/20.

    Example:
        >>> from functorch_kit import data
        >>> data.synthetic_images(count=100, shape=(8, 8, 3), batch_size=10).train(0)["x"].shape
        (10, 8, 8, 3)
    """
    random = np.random.Generator(np.random.Philox(key=classes))
    height, width, channels = shape
    labels = np.arange(count) % classes
    angle = (math.pi * labels / classes)[:, None, None]
    rows, columns = np.mgrid[:height, :width]
    frequency = random.uniform(2, 4, (count, 1, 1)) * 2 * math.pi / max(height, width)
    phase = random.uniform(0, 2 * math.pi, (count, 1, 1))
    stripes = np.sin(frequency * (rows * np.cos(angle) + columns * np.sin(angle)) + phase)
    gain = random.uniform(0.5, 1.0, (count, 1, 1, channels))
    x = stripes[..., None] * gain
    x = x.astype(np.float32) + noise * random.standard_normal(x.shape, np.float32)
    return arrays(x, labels, batch_size=batch_size, seed=seed, name="synthetic_images")


def gaussian(
    *,
    batch_size: int = 64,
    seed: int = 0,
    count: int = 64,
    inputs: int = 1000,
    outputs: int = 10,
) -> Data:
    """Standard normal inputs and targets, nothing to learn but by heart: the lecture's Set B.

    All records train; there is no validation and no test part.

    Args:
        batch_size: records in a training batch.
        seed: of the training order; the numbers are the same for every seed.
        count: number of records.
        inputs: size of x.
        outputs: size of y.

    Returns:
        Data with ``x`` (count, inputs) and ``y`` (count, outputs), float32.

    Example:
        >>> from functorch_kit import data
        >>> batch = data.gaussian().train(0)
        >>> batch["x"].shape, batch["y"].shape
        ((64, 1000), (64, 10))
    """
    random = np.random.Generator(np.random.Philox(key=0))
    x = random.standard_normal((count, inputs), np.float32)
    y = random.standard_normal((count, outputs), np.float32)
    return arrays(x, y, batch_size=batch_size, seed=seed, validation=0.0, test=0.0, name="gaussian")
