"""Example 8: compile and fit, the high level: Set A, rate 1e0, mean squared error, 50 epochs.

One batch holds all 64 records, so that an epoch is a step. ``fit`` takes the steps of example 7.

Command: ``python experiments/lecture/08_compile_and_fit.py``
"""

import argparse
import importlib
import sys

import classroom
import numpy as np

import functorch_kit as fk

layers = importlib.import_module("07_layers")
EPOCHS = 50


def example(options: argparse.Namespace) -> classroom.Shown:
    records, _, hidden, outputs = classroom.SIZES["A"]
    model = layers.net(hidden, outputs)
    result = fk.fit(
        model,
        fk.train.regression(model, loss=layers.mean_squared_error),
        optimizer=layers.gradient_descent,
        hparams={"learning_rate": 1e0},
        data=classroom.gaussian("A", batch_size=records),
        steps=EPOCHS,
        seed=0,
        quiet=True,
    )
    losses = np.array([row["loss"] for row in result.history if row["split"] == "train"])
    by_hand = layers.trained([1e0])[0][1e0]
    figures = {
        "loss at first": float(losses[0]),
        "loss of epoch 50": float(losses[-1]),
        "largest difference to the loop of example 7": classroom.difference(losses, by_hand),
    }
    claims = {
        "fit trains": bool(losses[-1] < 0.97 * losses[0]),
        "its 50 losses are those of the explicit loop": classroom.agree(
            losses.astype(np.float32), by_hand
        ),
    }
    return classroom.Shown(figures, claims, {"losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
