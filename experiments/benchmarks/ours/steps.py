"""Microseconds a step of this toolkit's steps on the digits, dispatched in one of four ways.

``chunk``, ``single`` and ``auto`` are the forms of ``fit``: rows are made on the host, dispatches
end where ``fit`` would evaluate (every epoch), and all metrics are fetched. ``jit_loop`` is the
loop that one writes by hand over the same pure step: batches are cut out of NumPy arrays in an
order that is shuffled every epoch, the state is donated, and losses are looked at once an epoch.

A sample is a stretch of consecutive steps; compiling, and the stretch before the first sample, do
not count. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

import functorch_kit as fk

BATCH = 64
Stretch = Callable[[int, int], None]
"""``stretch(first, steps)`` takes the steps from ``first`` on, and returns when they are done."""


def model_of(name: str) -> fk.types.Model:
    """The digits MLP, or the CNN of the main job, its convolutions by our choice or XLA's."""
    if name == "digits_mlp":
        return fk.models.mlp(fk.models.MLPConfig())
    config, parts = fk.models.CNNConfig(), {}
    method = "library" if name == "digits_cnn_library_conv" else "auto"
    for index, width in enumerate(config.features):
        parts[f"conv_{index}"] = fk.nn.conv(width, (3, 3), method=method)
        parts[f"relu_{index}"] = fk.nn.relu
    return fk.nn.serial(
        **parts,
        pool=fk.nn.max_pool((2, 2)),
        flatten=fk.nn.flatten(),
        dense=fk.nn.dense(config.dense),
        relu=fk.nn.relu,
        dropout=fk.nn.dropout(config.dropout),
        head=fk.nn.dense(config.outputs),
    )


def prepare(work: str, way: str, nonfinite: str, epochs: int = 1) -> tuple[Stretch, str]:
    """A function that trains, compiled and ready, and the name of its form."""
    data = fk.data.digits(batch_size=BATCH)
    model = model_of(work)
    hparams = fk.train.as_hparams({"learning_rate": 1e-3})

    def optimizer(h):
        return optax.adam(h["learning_rate"])

    step = fk.train.make_train_step(fk.train.classification(model), optimizer)
    x_spec = data.train.spec["x"]
    state = fk.train.init_state(model, optimizer, x_spec, hparams=hparams)
    if way == "jit_loop":
        return by_hand(step, data.train.arrays, hparams, state), way
    form = fk.train.choose_form(step, hparams, state, data.train.spec, way)
    checked = nonfinite != "off"
    stepper = fk.train.Stepper(step, data.train, hparams, state, form, is_checked=checked)
    guard = None if nonfinite == "off" else fk.train.Guard(stepper, skips=nonfinite == "skip")
    pause = epochs * data.train.steps_per_epoch
    return by_stepper(stepper, guard, hparams, state, pause), form.name


def by_stepper(
    stepper: fk.train.Stepper,
    guard: fk.train.Guard | None,
    hparams,
    state: fk.train.TrainState,
    pause: int,
) -> Stretch:
    """Steps as ``fit`` takes them."""

    def stretch(first: int, steps: int) -> None:
        nonlocal state
        losses: list[np.ndarray] = []
        for _, reached in fk.train.advance(
            stepper,
            hparams,
            state,
            first,
            first + steps,
            every=[pause],
            log=lambda start, metrics: losses.append(metrics["loss"]),
            guard=guard,
        ):
            state = reached
        jax.block_until_ready(state.params)
        assert np.isfinite(losses[-1][-1])

    return stretch


def by_hand(step, arrays: dict[str, np.ndarray], hparams, state: fk.train.TrainState) -> Stretch:
    """The loop that anybody would write."""
    jitted = jax.jit(step, donate_argnums=1)
    count = len(arrays["x"])
    generator = np.random.default_rng(0)

    def stretch(first: int, steps: int) -> None:
        nonlocal state
        done = 0
        while done < steps:
            order = generator.permutation(count)
            losses = []
            for start in range(0, count - BATCH + 1, BATCH):
                if done == steps:
                    break
                chosen = order[start : start + BATCH]
                batch = {name: array[chosen] for name, array in arrays.items()}
                state, metrics = jitted(hparams, state, batch)
                losses.append(metrics["loss"])
                done += 1
            assert np.isfinite(np.mean([float(loss.compute()) for loss in jax.device_get(losses)]))
        jax.block_until_ready(state.params)

    return stretch


def measure(stretch: Stretch, steps: int, samples: int) -> list[float]:
    """Microseconds a step, sample by sample, after one stretch that does not count."""
    found: list[float] = []
    for index in range(samples + 1):
        began = time.perf_counter()
        stretch(index * steps, steps)
        found.append((time.perf_counter() - began) / steps * 1e6)
    return found[1:]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    works = ["digits_mlp", "digits_cnn", "digits_cnn_library_conv"]
    parser.add_argument("work", choices=works)
    parser.add_argument("way", choices=["auto", "chunk", "single", "jit_loop"])
    parser.add_argument("--steps", type=int, default=200, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--nonfinite", default="off", choices=["off", "skip", "raise"])
    parser.add_argument("--pause", type=int, default=1, help="epochs between two pauses")
    options = parser.parse_args()
    fk.program.use_cache()
    stretch, form = prepare(options.work, options.way, options.nonfinite, options.pause)
    samples = measure(stretch, options.steps, options.samples)
    print(json.dumps({"samples": samples, "unit": "µs/step", "form": form}))


if __name__ == "__main__":
    main()
