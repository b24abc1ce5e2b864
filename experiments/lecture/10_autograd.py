"""Example 10: example 9 with autograd in place of the backward pass: the same values.

Command: ``python experiments/lecture/10_autograd.py``
"""

import argparse
import importlib
import sys

import classroom
import jax

hand = importlib.import_module("09_by_hand")


def example(options: argparse.Namespace) -> classroom.Shown:
    losses, weights = hand.trained(jax.value_and_grad(classroom.loss_b))
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
