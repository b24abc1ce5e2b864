"""Two spirals in the plane: a task of a second, with no file."""

from __future__ import annotations

import math

import numpy as np

from functorch_kit.data.arrays import arrays
from functorch_kit.data.pipeline import Data


def spirals(
    *,
    batch_size: int = 100,
    seed: int = 0,
    count: int = 100,
    noise: float = 0.05,
    rotations: float = 1.0,
    validation: float = 0.0,
    test: float = 0.0,
) -> Data:
    """Points on two spiral arms; which arm, is the class. functorch's example of many models.

    Point i of n lies at time t = i / (n - 1), at radius √t and angle 2π · rotations · t. A fair
    coin puts it on one of two arms, class 1 there and class 0 at the opposite point, so that the
    origin is between them. Each coordinate has Gaussian noise of its own. All points train unless
    shares are held out.

    Args:
        batch_size: records in a training batch; all of the default ones if not given.
        seed: of the training order; the points are the same for every seed.
        count: number of points.
        noise: standard deviation of the noise; the arms end at radius 1.
        rotations: turns of an arm.
        validation: fraction held out for validation.
        test: fraction held out for the test.

    Returns:
        Data with ``x`` (n, 2) float32 and ``y`` (n,) int32.

    Raises:
        DataError: no points, or fractions that leave none to train on.

    Source: "Parallel training" in functorch's examples (ensembling), 2021.

    Example:
        >>> from functorch_kit import data
        >>> batch = data.spirals().train(0)
        >>> batch["x"].shape, batch["y"].dtype.name, data.spirals().validation
        ((100, 2), 'int32', None)
    """
    random = np.random.Generator(np.random.Philox(key=2))
    time = np.linspace(0, 1, count)
    labels = random.integers(0, 2, count)
    radius, angle = np.sqrt(time) * (2 * labels - 1), 2 * math.pi * rotations * time
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    x = x + noise * random.standard_normal(x.shape)
    return arrays(
        x.astype(np.float32),
        labels.astype(np.int32),
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        test=test,
        class_names=("0", "1"),
        name="spirals",
    )
