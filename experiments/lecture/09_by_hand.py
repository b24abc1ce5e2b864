"""Example 9: Set B, the backward pass by hand, 500 steps at a rate of 1e-6.

Command: ``python experiments/lecture/09_by_hand.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import jax.numpy as jnp

RATE, STEPS = 1e-6, 500


def by_hand(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The sum of squared differences, and its gradients."""
    w1, w2 = weights
    h = x @ w1
    h_relu = jnp.maximum(h, 0)
    error = h_relu @ w2 - y
    loss = jnp.sum(error**2)

    slope_of_y = 2 * error
    slope_of_w2 = h_relu.T @ slope_of_y
    slope_of_h = jnp.where(h > 0, slope_of_y @ w2.T, 0)
    return loss, (x.T @ slope_of_h, slope_of_w2)


def trained(gradients: Any) -> tuple[Any, Any]:
    """Losses (500,) and weights, by gradients from ``gradients(weights, x, y)``."""
    x, y, weights = classroom.data_set("B")

    def step(weights: Any, _: None) -> tuple[Any, Any]:
        loss, slopes = gradients(weights, x, y)
        return classroom.moved(weights, slopes, RATE), loss

    weights, losses = jax.jit(lambda w: jax.lax.scan(step, w, length=STEPS))(weights)
    return losses, weights


def example(options: argparse.Namespace) -> classroom.Shown:
    losses, weights = trained(by_hand)
    figures = {
        "loss at first": losses[0],
        "loss of step 100": losses[99],
        "loss of step 500": losses[-1],
    }
    claims = {"the loss falls to less than a millionth": bool(losses[-1] < 1e-6 * losses[0])}
    return classroom.Shown(figures, claims, {"losses": losses, "weights": weights})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
