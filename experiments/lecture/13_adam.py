"""Example 13: the container of example 12 trained with Adam at a rate of 1e-4, 500 steps.

Command: ``python experiments/lecture/13_adam.py``
"""

import argparse
import importlib
import sys

import classroom
import jax
import numpy as np
import optax

sequential = importlib.import_module("12_sequential")
STEPS, RATE = 500, 1e-4


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, _ = classroom.data_set("B")
    model = sequential.net()
    params, _ = jax.jit(model.init)(jax.random.key(0), x)
    loss = sequential.summed(model)
    losses, _ = classroom.descend(loss, params, optax.adam(RATE), STEPS, x, y)
    _, after = classroom.descend(loss, params, optax.adam(RATE), 1, x, y)
    # Kingma and Ba, 2015: bias correction makes the first step the rate times the slope's sign.
    slopes = jax.grad(loss)(params, x, y)
    first = jax.tree.map(lambda new, old: np.asarray(new - old) / RATE, after, params)
    large = [
        np.asarray(step)[np.abs(np.asarray(slope)) > 1e-3] + np.sign(slope)[np.abs(slope) > 1e-3]
        for step, slope in zip(jax.tree.leaves(first), jax.tree.leaves(slopes), strict=True)
    ]
    furthest = max(float(np.abs(each).max(initial=0)) for each in large)
    figures = {
        "loss at first": losses[0],
        "loss of step 500": losses[-1],
        "first step over the rate, at most off a sign by": furthest,
    }
    claims = {
        "the loss falls to less than a hundredth": bool(losses[-1] < 1e-2 * losses[0]),
        "the first step is the rate times the sign of the slope": furthest < 0.02,
    }
    return classroom.Shown(figures, claims, {"losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
