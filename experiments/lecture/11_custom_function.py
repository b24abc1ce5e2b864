"""Example 11: ReLU as a function with a forward and a backward of its own: the same values.

Command: ``python experiments/lecture/11_custom_function.py``
"""

import argparse
import importlib
import sys
from typing import Any

import classroom
import jax
import jax.numpy as jnp

hand = importlib.import_module("09_by_hand")


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)``, with the gradient that is written below."""
    return jnp.maximum(x, 0)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return relu(x), x


def _backward(x: jax.Array, slope: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(x > 0, slope, 0),)


relu.defvjp(_forward, _backward)


def loss(weights: Any, x: Any, y: Any) -> Any:
    """The sum of squared differences."""
    w1, w2 = weights
    return jnp.sum(jnp.square(relu(x @ w1) @ w2 - y))


def example(options: argparse.Namespace) -> classroom.Shown:
    losses, weights = hand.trained(jax.value_and_grad(loss))
    losses_by_hand, weights_by_hand = hand.trained(hand.by_hand)
    figures = {
        "loss of step 500": losses[-1],
        "loss of step 500 by hand": losses_by_hand[-1],
        "largest difference of the weights": classroom.difference(weights, weights_by_hand),
    }
    claims = {
        "all 500 losses are those of example 9": classroom.agree(losses, losses_by_hand),
        "and so are the weights": classroom.agree(weights, weights_by_hand),
    }
    return classroom.Shown(figures, claims, {"losses": losses, "weights": weights})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
