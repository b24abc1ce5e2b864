"""The same weights wherever they are drawn: a stream of random numbers for each tensor's name."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor such as a trained model might have: matrices keep the size of what they multiply."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_var":
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    numbers = random.standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return numbers * np.float32(math.sqrt(1 / math.prod(shape[1:])))
    return np.float32(0.1) * numbers + np.float32(last == "weight")


def all_drawn(shapes: Shapes) -> dict[str, np.ndarray]:
    """Every tensor of a model, by name."""
    return {name: drawn(name, shape) for name, shape in shapes.items()}


def as_text(shapes: Shapes) -> str:
    """Names and shapes, to be kept in a file."""
    return json.dumps({name: list(shape) for name, shape in shapes.items()})


def from_text(text: str) -> dict[str, tuple[int, ...]]:
    """What ``as_text`` has written."""
    return {name: tuple(shape) for name, shape in json.loads(text).items()}


def image(case: str, side: int) -> np.ndarray:
    """Two images, channels last."""
    random = np.random.default_rng(zlib.crc32(case.encode()))
    return random.standard_normal((2, side, side, 3), dtype=np.float32)


def tokens(case: str, vocabulary: int, length: int) -> np.ndarray:
    """Two rows of tokens."""
    random = np.random.default_rng(zlib.crc32(case.encode()))
    return random.integers(0, vocabulary, (2, length)).astype(np.int32)
