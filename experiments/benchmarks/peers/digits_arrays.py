"""What the peers' scripts share: the training digits, and the line of JSON that they print."""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH = 64


def training_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,258 training records: x (1258, 64) float32 from 0 to 1, y (1258,) int32."""
    x, y = load_digits(return_X_y=True)
    x, _, y, _ = train_test_split(x, y, test_size=539, stratify=y, random_state=0)
    return np.asarray(x, np.float32) / 16, np.asarray(y, np.int32)


def batches(count: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Record numbers of one epoch's full batches, in a fresh order."""
    order = generator.permutation(count)
    for start in range(0, count - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def cores() -> int:
    """How many cores this process may use, which in a container are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options(description: str | None) -> argparse.ArgumentParser:
    """``--epochs`` in a sample, ``--samples``."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs in a sample")
    parser.add_argument("--samples", type=int, default=10)
    return parser


def time_epochs(epoch: Callable[[], int], epochs: int, samples: int) -> None:
    """Time ``epoch() -> steps`` and print microseconds a step; one sample before does not count."""
    found: list[float] = []
    for _ in range(samples + 1):
        began = time.perf_counter()
        steps = sum(epoch() for _ in range(epochs))
        found.append((time.perf_counter() - began) / steps * 1e6)
    print_samples(found[1:])


def print_stretches(ends: list[float], steps: int) -> None:
    """Print microseconds a step from the times at which equal stretches of steps ended."""
    print_samples([(b - a) / steps * 1e6 for a, b in itertools.pairwise(ends)])


def print_samples(samples: list[float]) -> None:
    """The last line of a contender's output."""
    print(json.dumps({"samples": samples, "unit": "µs/step"}))
