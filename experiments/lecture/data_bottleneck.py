"""Reading as the bottleneck: data on the device, on a disk, far away; prefetched or serial.

Serial, the next batch is read when the step before it is done. Prefetched, threads of the CPU read
it while the device computes, and a run says itself what share of its time it waited for input.

Command: ``python experiments/lecture/data_bottleneck.py``
"""

import argparse
import dataclasses
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import classroom
import jax
import numpy as np
import optax
import pictures

import functorch_kit as fk

INPUTS, CLASSES, AWAY = 784, 10, 0.8


@dataclasses.dataclass(frozen=True)
class FarAway:
    """Records that come as slowly as from far away, a batch at a time."""

    arrays: dict[str, np.ndarray]
    seconds_a_record: float
    decodes: bool = True
    line: Any = dataclasses.field(default_factory=threading.Lock, compare=False)

    def __len__(self) -> int:
        return len(self.arrays["x"])

    @property
    def spec(self) -> dict[str, Any]:
        """Of one record."""
        return fk.data.ArraySource(self.arrays).spec

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers, after a while."""
        with self.line:
            time.sleep(self.seconds_a_record * len(index))
        return {name: array[index] for name, array in self.arrays.items()}


class Measured(NamedTuple):
    """Of one way: milliseconds a step, the share of the time it waited for input, weights."""

    ms: float
    waited: float
    params: Any


class Training(NamedTuple):
    """A train step, the same under ``jax.jit``, and the state that every way begins with."""

    step: Any
    jitted: Any
    state: Any


def training(hidden: int, x_spec: Any) -> Training:
    """Of an MLP."""
    model = fk.models.mlp(fk.models.MLPConfig(hidden=(hidden, hidden), outputs=CLASSES))
    sgd = optax.sgd(1e-3)
    step = fk.train.make_train_step(fk.train.classification(model), sgd)
    return Training(step, jax.jit(step), fk.train.init_state(model, sgd, x_spec))


def serial(own: Training, pipeline: Any, steps: int) -> Measured:
    """Read, compute, read, compute."""
    state, first = own.state, jax.device_put(pipeline(0))
    jax.block_until_ready(own.jitted({}, state, first))  # compiled
    began, reading = time.perf_counter(), 0.0
    for number in range(steps):
        asked = time.perf_counter()
        batch = jax.block_until_ready(jax.device_put(pipeline(number)))
        reading += time.perf_counter() - asked
        state, _ = jax.block_until_ready(own.jitted({}, state, batch))
    seconds = time.perf_counter() - began
    return Measured(seconds / steps * 1e3, reading / seconds, state.params)


def prefetched(own: Training, pipeline: Any, steps: int) -> Measured:
    """As ``fit`` takes its steps."""
    state = jax.tree.map(lambda leaf: leaf.copy(), own.state)  # it is donated
    form = fk.train.choose_form(own.step, {}, state, pipeline.spec)
    stepper = fk.train.Stepper(own.step, pipeline, {}, state, form)
    began = time.perf_counter()
    for _, state in fk.train.advance(  # noqa: B020 (where the last step leaves it)
        stepper, {}, state, 0, steps, every=[steps], log=lambda start, metrics: None
    ):
        jax.block_until_ready(state.params)
    seconds = time.perf_counter() - began
    return Measured(seconds / steps * 1e3, stepper.input().wait_share, state.params)


def example(options: argparse.Namespace) -> classroom.Shown:
    records, batch, hidden, steps = (128, 16, 16, 12) if options.quick else (8192, 256, 1024, 200)
    random = np.random.default_rng(0)
    arrays = {
        "x": random.standard_normal((records, INPUTS), np.float32),
        "y": random.integers(0, CLASSES, records).astype(np.int32),
    }
    order = fk.data.Shuffled(records, batch, seed=0)
    own = training(hidden, jax.ShapeDtypeStruct((batch, INPUTS), np.float32))
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, array in arrays.items():
            np.save(Path(folder) / f"{name}.npy", array)
        resident = fk.data.Pipeline(arrays, order)
        mapped = fk.data.Streamed(fk.data.mapped(folder), order, classes=CLASSES)
        found["resident on the device"] = prefetched(own, resident, steps)
        found["memory-mapped, serial"] = serial(own, mapped, steps)
        found["memory-mapped, prefetched"] = prefetched(own, mapped, steps)
    slow = found["resident on the device"].ms / 1e3 * AWAY / batch
    away = fk.data.Streamed(FarAway(arrays, slow), order, classes=CLASSES)
    found["far away, serial"] = serial(own, away, steps)
    found["far away, prefetched"] = prefetched(own, away, steps)

    base = found["resident on the device"]
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "ms_a_step": each.ms,
            "records_a_second": batch / each.ms * 1e3,
            "waited": each.waited,
            "times_resident": each.ms / base.ms,
        }
        for name, each in found.items()
    ]
    figures = {
        row["way"]: f"{row['ms_a_step']:.4g} ms a step, {row['records_a_second']:,.0f} records/s,"
        f" {row['times_resident']:.2f} × resident, waited {100 * row['waited']:.0f} % of the time"
        for row in rows
    }
    ways = [*range(1, len(rows) + 1)]
    panel = pictures.Panel(
        "1 resident, 2 and 3 mapped, 4 and 5 far away; 2 and 4 serial, 3 and 5 prefetched",
        "way",
        "milliseconds a step",
        {
            "a step": (ways, [row["ms_a_step"] for row in rows]),
            "of it waited for input": (ways, [row["ms_a_step"] * row["waited"] for row in rows]),
        },
        is_log=False,
    )
    figures["picture"] = pictures.leave(options.folder, "data_bottleneck", [panel], rows)
    claims = {
        "however they are read, the batches and so the weights are the same": all(
            classroom.difference(each.params, base.params) < 1e-4 for each in found.values()
        )
    }
    if not options.quick:  # of a few steps on a busy machine the clock says little
        away_ms = [found[f"far away, {how}"].ms for how in ("serial", "prefetched")]
        claims["prefetching hides most of what reading takes"] = away_ms[1] - base.ms < 0.5 * (
            away_ms[0] - base.ms
        )
    return classroom.Shown(figures, claims, {"rows": rows})


def add_options(parser: argparse.ArgumentParser) -> None:
    pictures.add_folder(parser, "data-bottleneck")


if __name__ == "__main__":
    sys.exit(classroom.run(example, options=add_options))
