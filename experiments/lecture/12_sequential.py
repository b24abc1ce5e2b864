"""Example 12: a sequential container on Set B, 500 steps: summed loss, rate 1e-4.

In 2018 the loss became a mean over all 640 numbers and the rate 1e-2: 6.4 times smaller steps.

Command: ``python experiments/lecture/12_sequential.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import optax

import functorch_kit as fk

STEPS = 500


def net() -> fk.nn.Model:
    """Two dense layers and a ReLU in a row."""
    _, _, hidden, outputs = classroom.SIZES["B"]
    return fk.nn.serial(first=fk.nn.dense(hidden), relu=fk.nn.relu, second=fk.nn.dense(outputs))


def summed(model: fk.nn.Model) -> Any:
    """The sum of squared differences between what the model says and the targets."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        y_pred, _ = model.apply(params, (), x)
        return fk.losses.squared_error(y_pred, y).sum()

    return loss


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, _ = classroom.data_set("B")
    model = net()
    params, _ = jax.jit(model.init)(jax.random.key(0), x)
    loss = summed(model)
    losses, _ = classroom.descend(loss, params, optax.sgd(1e-4), STEPS, x, y)
    means, _ = classroom.descend(
        lambda params, x, y: loss(params, x, y) / y.size, params, optax.sgd(1e-2), STEPS, x, y
    )
    figures = {
        "summed loss at first": losses[0],
        "summed loss of step 500, rate 1e-4": losses[-1],
        "mean loss at first": means[0],
        "mean loss of step 500, rate 1e-2": means[-1],
    }
    claims = {
        "the summed loss falls to less than a thousandth": bool(losses[-1] < 1e-3 * losses[0]),
        "the mean is the sum over 640 outputs": classroom.agree(means[0] * y.size, losses[0]),
        "the form of 2018 learns more slowly": bool(
            losses[-1] / losses[0] < means[-1] / means[0] < 1
        ),
    }
    return classroom.Shown(figures, claims, {"losses": losses, "means": means})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
