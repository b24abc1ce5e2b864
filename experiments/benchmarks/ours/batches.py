"""Microseconds for a shuffled batch of 256 from a memory-mapped file of float32 (n, 784).

``ours``: our pipeline through its feed, so that each batch is on the device, every value checked;
``numpy``: a plain gather by a permutation made beforehand.
The file is made if it is not there. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit import data

WIDTH, BATCH = 784, 256


def make_file(path: Path, records: int) -> None:
    if path.exists():
        return
    random = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        np.save(file, random.standard_normal((records, WIDTH), np.float32))
    draft.replace(path)


def timed(batches: Callable[[], int], samples: int) -> list[float]:
    """Microseconds a batch of each stretch; the first stretch, which warms up, does not count."""
    found: list[float] = []
    for _ in range(samples + 1):
        began = time.perf_counter()
        count = batches()
        found.append((time.perf_counter() - began) / count * 1e6)
    return found[1:]


def ours(path: Path, count: int) -> tuple[Callable[[], int], data.Feed]:
    source = data.mapped(path)
    order = data.Shuffled(len(source), BATCH, seed=0)
    pipeline = data.Streamed(source, order)
    steps = pipeline.most_block_steps
    feed = data.Feed(pipeline, steps)
    blocks = max(3, count // steps)
    at = 0

    def batches() -> int:
        nonlocal at
        for _ in range(blocks):
            feed(at)
            at += 1
        return blocks * steps

    return batches, feed


def numpy_gather(path: Path, count: int) -> Callable[[], int]:
    x = np.load(path, mmap_mode="r")
    permutation = np.random.default_rng(0).permutation(len(x))
    full = len(x) // BATCH

    def batches() -> int:
        for step in range(count):
            first = step % full * BATCH
            x[permutation[first : first + BATCH]]
        return count

    return batches


def order_us() -> float:
    """Random access to the order of 10**12 records: one batch of 256, wherever it is."""
    order = data.Shuffled(10**12, BATCH, seed=0)
    times: list[float] = []
    for step in range(0, 400_000_000, 1_000_000):
        began = time.perf_counter()
        order.rows(step, 1)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("how", choices=["ours", "numpy"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=2000, help="in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    make_file(options.file, options.records)
    facts: dict[str, Any] = {"unit": "µs/batch"}
    if options.how == "numpy":
        facts["samples"] = timed(numpy_gather(options.file, options.batches), options.samples)
    else:
        batches, feed = ours(options.file, options.batches)
        facts["samples"] = timed(batches, options.samples)
        feed.close()
        facts |= {"mode": feed.mode, "order_us": order_us()}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
