"""Milliseconds of a training step on data that are there, or have to be read and checked first.

``ideal``: the data are there, a step takes T. ``overlapped``: T is measured so in this process,
then the same steps run on a source that takes 0.8 T for each batch (as a disk or a network would:
it waits and does not compute). One after the other they would take 1.8 T. ``checked`` and ``off``:
the steps on data that are read from memory for each batch, with and without the check of every
value. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import numpy as np
import optax

import functorch_kit as fk

BATCH, WIDTH, CLASSES, READING = 256, 784, 10, 0.8


@dataclasses.dataclass(frozen=True)
class Slow:
    """Records in memory that come as slowly as from far away."""

    x: np.ndarray
    y: np.ndarray
    seconds: float
    decodes: bool = True

    def __len__(self) -> int:
        return len(self.x)

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one record."""
        return fk.data.ArraySource({"x": self.x, "y": self.y}).spec

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers, after a while."""
        time.sleep(self.seconds * len(index) / BATCH)
        return {"x": self.x[index], "y": self.y[index]}


def milliseconds(pipeline: Any, steps: int, samples: int) -> tuple[list[float], Any]:
    """Of each stretch of steps after one that does not count; and the stepper."""
    model = fk.models.mlp(fk.models.MLPConfig(hidden=(1024, 1024), outputs=CLASSES))
    objective, adam = fk.train.classification(model), optax.adam(1e-3)
    state = fk.train.init_state(model, adam, pipeline.spec["x"])
    step = fk.train.make_train_step(objective, adam)
    form = fk.train.Form("chunk", "a benchmark")
    stepper = fk.train.Stepper(step, pipeline, {}, state, form)
    stepper._feed._threads = 1  # several threads would wait side by side: no overlap with compute
    found: list[float] = []
    for stretch in range(samples + 1):
        first, last = stretch * steps, (stretch + 1) * steps
        began = time.perf_counter()
        for _, after in fk.train.advance(
            stepper, {}, state, first, last, every=[last], log=lambda start, metrics: None
        ):
            state = after
        jax.block_until_ready(state.params)
        found.append((time.perf_counter() - began) / steps * 1e3)
    return found[1:], stepper


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("how", choices=["ideal", "overlapped", "checked", "off"])
    parser.add_argument("--steps", type=int, default=160, help="in a sample")
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    x = random.standard_normal((4096, WIDTH), np.float32)
    y = random.integers(0, CLASSES, 4096).astype(np.int32)
    order = fk.data.Shuffled(len(x), BATCH, seed=0)
    if options.how in ("checked", "off"):
        check = "refuse" if options.how == "checked" else "off"
        source = fk.data.ArraySource({"x": x, "y": y})
        pipeline = fk.data.Streamed(source, order, check, CLASSES)
    else:
        pipeline = fk.data.training({"x": x, "y": y}, BATCH, seed=0)
    samples, stepper = milliseconds(pipeline, options.steps, options.samples)
    if options.how == "overlapped":
        seconds = READING * statistics.median(samples) / 1e3
        source = Slow(x, y, seconds)
        streamed = fk.data.Streamed(source, order, classes=CLASSES)
        samples, stepper = milliseconds(streamed, options.steps, options.samples)
    share = stepper.input().wait_share
    print(json.dumps({"samples": samples, "unit": "ms/step", "waited_share": share}))


if __name__ == "__main__":
    main()
