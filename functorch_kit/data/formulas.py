"""Functions to learn, sampled: noisy sinusoids, and what a random network does."""

from __future__ import annotations

import numpy as np

from functorch_kit.data.arrays import arrays
from functorch_kit.data.pipeline import Data


def sinusoids(
    *,
    batch_size: int = 64,
    seed: int = 0,
    count: int = 1024,
    outputs: int = 1,
    noise: float = 0.1,
) -> Data:
    """Points of sine waves of rising frequency, under Gaussian noise: a regression by eye.

    Args:
        batch_size: records in a training batch.
        seed: of the training order; the points are the same for every seed.
        count: number of points, ``x`` uniform in [-1, 1).
        outputs: waves: output ``k`` is ``sin(pi (k + 1) x)``.
        noise: standard deviation of the noise.

    Returns:
        Data with ``x`` (n, 1) and ``y`` (n, outputs) float32, split 70/10/20.

    Example:
        >>> from functorch_kit import data
        >>> batch = data.sinusoids(noise=0.0).train(0)
        >>> bool(np.allclose(batch["y"], np.sin(np.pi * batch["x"]), atol=1e-6))
        True
    """
    random = np.random.Generator(np.random.Philox(key=1))
    x = random.uniform(-1, 1, (count, 1))
    y = np.sin(np.pi * np.arange(1, outputs + 1) * x)
    y = y + noise * random.standard_normal(y.shape)
    return arrays(
        x.astype(np.float32), y.astype(np.float32), batch_size=batch_size, seed=seed,
        name="sinusoids",
    )  # fmt: skip


def teacher_student(
    *,
    batch_size: int = 64,
    seed: int = 0,
    count: int = 4096,
    inputs: int = 20,
    hidden: int = 8,
    outputs: int = 1,
    noise: float = 0.0,
) -> Data:
    """What a random two-layer network, the teacher, says of Gaussian inputs (Saad and Solla, 1995).

    A student of the same shape can learn it without error, so the loss says how far it has come.

    Args:
        batch_size: records in a training batch.
        seed: of the training order; teacher and inputs are the same for every seed.
        count: number of records.
        inputs: size of x, standard normal.
        hidden: ReLU units of the teacher.
        outputs: size of y.
        noise: standard deviation of the noise on y.

    Returns:
        Data with ``x`` (n, inputs) and ``y`` (n, outputs) float32, split 70/10/20.

    Example:
        >>> from functorch_kit import data
        >>> batch = data.teacher_student(count=200, batch_size=10).train(0)
        >>> batch["x"].shape, batch["y"].shape
        ((10, 20), (10, 1))
    """
    random = np.random.Generator(np.random.Philox(key=2))
    first = random.standard_normal((inputs, hidden)) / np.sqrt(inputs)
    second = random.standard_normal((hidden, outputs)) / np.sqrt(hidden)
    x = random.standard_normal((count, inputs))
    y = np.maximum(x @ first, 0) @ second
    y = y + noise * random.standard_normal(y.shape)
    return arrays(
        x.astype(np.float32), y.astype(np.float32), batch_size=batch_size, seed=seed,
        name="teacher_student",
    )  # fmt: skip
