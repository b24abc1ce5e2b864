"""Example 5: the step of example 4 with its update fetched as well: it trains.

Command: ``python experiments/lecture/05_loss_and_update.py``
"""

import argparse
import importlib
import sys

import classroom
import jax
import numpy as np

step = importlib.import_module("04_only_the_loss").step
by_hand = importlib.import_module("02_two_layers").by_hand
RATE, STEPS = 1e-5, 50


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("A")
    w1, w2, inputs, targets = (np.asarray(each, np.float64) for each in (*weights, x, y))
    compiled, losses = jax.jit(step), []
    for _ in range(STEPS):
        weights, loss = compiled(weights, x, y)
        losses.append(np.asarray(loss))
    # The same in NumPy, by hand, in float64; in the short form the first steps of it.
    expected = []
    for _ in range(5 if options.quick else STEPS):
        loss, slopes = by_hand(w1, w2, inputs, targets)
        w1, w2 = w1 - RATE * slopes[0], w2 - RATE * slopes[1]
        expected.append(loss)
    figures = {
        "loss at first": losses[0],
        "loss of step 50": losses[-1],
        "largest difference to NumPy's losses": classroom.difference(
            np.array(losses[: len(expected)]), np.array(expected)
        ),
    }
    claims = {
        "the loss falls to less than a tenth": bool(losses[-1] < losses[0] / 10),
        "the losses are those of NumPy by hand": classroom.agree(
            np.array(losses[: len(expected)]), np.array(expected)
        ),
    }
    return classroom.Shown(figures, claims, {"weights": weights, "losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
