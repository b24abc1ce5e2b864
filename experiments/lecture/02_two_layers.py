"""Example 2: a two-layer net on Set A, one forward and one backward pass.

The same in NumPy: the forward pass is as easy, the backward pass is worked out by hand.

Command: ``python experiments/lecture/02_two_layers.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import numpy as np


def by_hand(w1: Any, w2: Any, x: Any, y: Any) -> tuple[Any, tuple[Any, Any]]:
    """The loss and its gradients in NumPy."""
    h = np.maximum(x @ w1, 0)
    error = h @ w2 - y
    loss = np.mean(np.sum(error**2, axis=1))

    slope_of_y = 2 * error / len(x)
    slope_of_w2 = h.T @ slope_of_y
    slope_of_h = slope_of_y @ w2.T
    slope_of_w1 = x.T @ (slope_of_h * (h > 0))
    return loss, (slope_of_w1, slope_of_w2)


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("A")
    loss, slopes = jax.jit(jax.value_and_grad(classroom.loss_a))(weights, x, y)

    w1, w2, inputs, targets = (np.asarray(each, np.float64) for each in (*weights, x, y))
    expected, slopes_by_hand = by_hand(w1, w2, inputs, targets)
    figures = {
        "loss": loss,
        "loss by hand, in float64": float(expected),
        "largest difference of the gradients": classroom.difference(slopes, slopes_by_hand),
    }
    claims = {
        "the loss is that of NumPy": classroom.agree(loss, expected),
        "jax.grad is the gradient by hand": classroom.agree(slopes, slopes_by_hand),
    }
    return classroom.Shown(figures, claims, {"slopes": slopes})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
