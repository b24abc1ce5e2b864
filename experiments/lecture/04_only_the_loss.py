"""Example 4: a training step of which only the loss is fetched, 50 times: it does not train.

A pitfall: the step works out new weights, but nobody asks for them. What is not asked for is not
done: the compiler leaves out the backward pass, and the step costs less, too.

Command: ``python experiments/lecture/04_only_the_loss.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import numpy as np

RATE = 1e-5


def step(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """New weights, and the loss of the old ones."""
    loss, slopes = jax.value_and_grad(classroom.loss_a)(weights, x, y)
    return classroom.moved(weights, slopes, RATE), loss


def only_the_loss(weights: Any, x: Any, y: Any) -> Any:
    """The same step, with the new weights dropped."""
    _, loss = step(weights, x, y)
    return loss


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("A")
    before = jax.tree.map(np.array, weights)
    compiled = {
        name: jax.jit(function).lower(weights, x, y).compile()
        for name, function in {"whole": step, "loss": only_the_loss}.items()
    }
    losses = np.array([compiled["loss"](weights, x, y) for _ in range(50)])
    costs: dict[str, Any] = {name: each.cost_analysis() for name, each in compiled.items()}
    flops = {name: float(cost["flops"]) for name, cost in costs.items()}
    times = 3 if options.quick else 50
    spent = {
        name: classroom.milliseconds(lambda each=each: each(weights, x, y), times)
        for name, each in compiled.items()
    }
    figures = {
        "loss at first": float(losses[0]),
        "loss after 50 steps": float(losses[-1]),
        "operations of the whole step": flops["whole"],
        "operations where only the loss is fetched": flops["loss"],
        "ms of the whole step": spent["whole"],
        "ms where only the loss is fetched": spent["loss"],
    }
    claims = {
        "the weights are what they were, to the bit": classroom.same_bits(weights, before),
        "so is the loss, 50 times": bool((losses == losses[0]).all()),
        "the update was not computed at all": flops["loss"] < 0.5 * flops["whole"],
    }
    return classroom.Shown(figures, claims, {"losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
