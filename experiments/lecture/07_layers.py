"""Example 7: layers with biases and Xavier initialisation, 50 steps at rates of 1e0 and of 1e-5.

Copies of the lecture have the one rate or the other; the loss is the mean over all outputs. The
rate is an argument of the compiled step, so that both are one program. What makes the difference
to example 5 is the initialisation: it begins far below, and ends below in as many steps.

Command: ``python experiments/lecture/07_layers.py``
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import classroom
import jax
import numpy as np
import optax

import functorch_kit as fk

RATES, STEPS = (1e0, 1e-5), 50
xavier = jax.nn.initializers.glorot_normal()


def net(hidden: int, outputs: int) -> fk.nn.Model:
    """Two dense layers with biases."""
    return fk.nn.serial(
        hidden=fk.nn.dense(hidden, kernel_init=xavier),
        relu=fk.nn.relu,
        head=fk.nn.dense(outputs, kernel_init=xavier),
    )


def mean_squared_error(predictions: Any, targets: Any) -> Any:
    """Of each record, the mean over its outputs."""
    return fk.losses.squared_error(predictions, targets) / targets.shape[-1]


def gradient_descent(hparams: Any) -> optax.GradientTransformation:
    """Its rate is a hyperparameter."""
    return optax.sgd(hparams["learning_rate"])


def trained(rates: Sequence[float]) -> tuple[dict[float, np.ndarray], int]:
    """The losses of 50 steps by rate, and how many programs they took."""
    records, _, hidden, outputs = classroom.SIZES["A"]
    data, model = classroom.gaussian("A", records), net(hidden, outputs)
    objective = fk.train.regression(model, loss=mean_squared_error)
    train_step, traces = fk.train.make_train_step(objective, gradient_descent), []

    @jax.jit
    def step(*arguments: Any) -> Any:
        traces.append(1)
        return train_step(*arguments)

    losses: dict[float, np.ndarray] = {}
    for rate in rates:
        hparams = fk.train.as_hparams({"learning_rate": rate})
        state = fk.train.init_state(
            model, gradient_descent, data.train.spec["x"], hparams=hparams, seed=0
        )
        found = []
        for number in range(STEPS):
            state, metrics = step(hparams, state, data.train(number))
            found.append(float(metrics["loss"].compute()))
        losses[rate] = np.array(found, np.float32)
    return losses, len(traces)


def example(options: argparse.Namespace) -> classroom.Shown:
    losses, programs = trained(RATES)
    outputs = classroom.SIZES["A"][-1]
    x, y, weights = classroom.data_set("A")
    without, _ = classroom.descend(classroom.loss_a, weights, optax.sgd(1e-5), STEPS, x, y)
    figures = {
        "loss at first": losses[1e0][0],
        "loss of step 50, rate 1e0": losses[1e0][-1],
        "loss of step 50, rate 1e-5": losses[1e-5][-1],
        "example 5 at first, as a mean": float(without[0]) / outputs,
        "example 5 after 50 steps, as a mean": float(without[-1]) / outputs,
        "compiled programs": programs,
    }
    claims = {
        "a rate of 1e0 trains": bool(losses[1e0][-1] < 0.97 * losses[1e0][0]),
        "a rate of 1e-5 hardly moves": bool(abs(losses[1e-5][-1] / losses[1e-5][0] - 1) < 1e-3),
        "it begins a thousand times below example 5": bool(
            1e3 * losses[1e0][0] < float(without[0]) / outputs
        ),
        "and ends below it": bool(losses[1e0][-1] < float(without[-1]) / outputs),
        "two rates are one program": programs == 1,
    }
    return classroom.Shown(figures, claims, {"losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
