"""Example 6: the same with an optimizer object, gradient descent with a rate of 1e-5.

Command: ``python experiments/lecture/06_optimizer.py``
"""

import argparse
import importlib
import sys
from typing import Any

import classroom
import jax
import optax

RATE, STEPS = 1e-5, 50
by_hand = importlib.import_module("04_only_the_loss").step


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("A")
    optimizer = optax.sgd(RATE)

    @jax.jit
    def step(weights: Any, memory: Any) -> tuple[Any, Any, Any]:
        loss, slopes = jax.value_and_grad(classroom.loss_a)(weights, x, y)
        updates, memory = optimizer.update(slopes, memory, weights)
        return optax.apply_updates(weights, updates), memory, loss

    written_out, memory, losses = weights, optimizer.init(weights), []
    one_step = jax.jit(by_hand)
    for _ in range(STEPS):
        weights, memory, loss = step(weights, memory)
        losses.append(float(loss))
        written_out, _ = one_step(written_out, x, y)
    figures = {
        "loss at first": losses[0],
        "loss of step 50": losses[-1],
        "largest difference to the update by hand": classroom.difference(weights, written_out),
    }
    claims = {
        "the loss falls to less than a tenth": losses[-1] < losses[0] / 10,
        "optax.sgd is the update by hand": classroom.agree(weights, written_out),
    }
    return classroom.Shown(figures, claims, {"weights": weights})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
