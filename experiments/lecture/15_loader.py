"""Example 15: a loader with batches of 8: 10 epochs, summed loss, rate 1e-4.

In 2018: 20 epochs, mean loss, rate 1e-2. A batch is a function of the step, ``data.train(step)``,
so that going on in the middle needs the number of the step and nothing else.

Command: ``python experiments/lecture/15_loader.py``
"""

import argparse
import importlib
import sys
from typing import Any

import classroom
import jax
import numpy as np

import functorch_kit as fk

sequential = importlib.import_module("12_sequential")
BATCH = 8


def trained(data: fk.data.Data, epochs: int, rate: float, is_mean: bool) -> np.ndarray:
    """The loss of all records, before and after each epoch."""
    model = sequential.net()
    params, _ = model.init(jax.random.key(0), data.train.spec["x"])
    summed = sequential.summed(model)

    @jax.jit
    def step(params: Any, batch: Any) -> Any:
        scale = 1 / batch["y"].size if is_mean else 1.0
        slopes = jax.grad(summed)(params, batch["x"], batch["y"])
        return classroom.moved(params, slopes, rate * scale)

    everything = data.train.arrays
    whole = jax.jit(summed)
    losses = [float(whole(params, everything["x"], everything["y"]))]
    for epoch in range(epochs):
        for number in range(data.train.steps_per_epoch):
            params = step(params, data.train(epoch * data.train.steps_per_epoch + number))
        losses.append(float(whole(params, everything["x"], everything["y"])))
    return np.array(losses)


def example(options: argparse.Namespace) -> classroom.Shown:
    data = classroom.gaussian("B", batch_size=BATCH)
    steps = data.train.steps_per_epoch
    epochs = [
        np.concatenate([data.train(e * steps + i)["x"] for i in range(steps)]) for e in (0, 1)
    ]
    summed = trained(data, 10, 1e-4, is_mean=False)
    mean = trained(data, 20, 1e-2, is_mean=True)
    figures = {
        "batches in an epoch": steps,
        "loss at first": summed[0],
        "10 epochs, sum, rate 1e-4": summed[-1],
        "20 epochs, mean, rate 1e-2": mean[-1],
    }
    in_order = [each[np.lexsort(each.T)] for each in epochs]
    claims = {
        "an epoch holds every record once": classroom.same_bits(in_order[0], in_order[1])
        and len(np.unique(in_order[0], axis=0)) == 64,
        "the next epoch has another order": not classroom.same_bits(epochs[0], epochs[1]),
        "a batch asked for again is the same": classroom.same_bits(data.train(5), data.train(5)),
        "both forms train": bool(summed[-1] < 0.5 * summed[0] and mean[-1] < 0.5 * mean[0]),
    }
    return classroom.Shown(figures, claims, {"summed": summed, "mean": mean})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
