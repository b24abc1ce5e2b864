"""How PyTorch lays out what we lay out otherwise, one array at a time, both ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """One array there and here.

    Attributes:
        shape: of theirs, from that of ours.
        ours: from theirs.
        theirs: from ours.
    """

    shape: Callable[[Shape], Shape]
    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda shape: shape, lambda there: there, lambda here: here)
"""Biases, norms, embeddings; the dense layers of GPT-2."""

TRANSPOSED = Layout(lambda shape: shape[::-1], np.transpose, np.transpose)
"""``Linear``: (outputs, inputs) there, (inputs, outputs) here."""

CONVOLUTION = Layout(
    lambda shape: (shape[3], shape[2], shape[0], shape[1]),
    lambda there: there.transpose(2, 3, 1, 0),
    lambda here: here.transpose(3, 2, 0, 1),
)
"""``Conv2d``: (outputs, inputs, height, width) there, (height, width, inputs, outputs) here."""

ROW = Layout(lambda shape: (1, *shape), lambda there: there[0], lambda here: here[None])
"""What has an axis for the batch there, such as the positions of ViT."""


def flattened(channels: int, height: int, width: int) -> Layout:
    """The dense layer behind an image: there channels come first, here they come last.

    Args:
        channels: of the image.
        height: of the image.
        width: of the image.

    Example:
        >>> layout = flattened(2, 1, 3)
        >>> here = layout.ours(np.arange(6)[None])  # one output of a 1×3 image of 2 channels
        >>> here[:, 0].tolist(), layout.theirs(here).tolist()
        ([0, 3, 1, 4, 2, 5], [[0, 1, 2, 3, 4, 5]])
    """
    image = (channels, height, width)

    def ours(there: np.ndarray) -> np.ndarray:
        return there.reshape(-1, *image).transpose(2, 3, 1, 0).reshape(math.prod(image), -1)

    def theirs(here: np.ndarray) -> np.ndarray:
        split = here.reshape(height, width, channels, -1)
        return split.transpose(3, 2, 0, 1).reshape(-1, math.prod(image))

    return Layout(TRANSPOSED.shape, ours, theirs)
