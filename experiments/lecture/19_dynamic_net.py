"""Example 19: a dynamic net on Set B: its middle layer is used 0 to 3 times, drawn in each step.

Gradient descent with a rate of 1e-4 and momentum 0.9, 500 steps. The graph differs from step to
step, and yet one compiled program runs them all: how often is an argument of it.

Command: ``python experiments/lecture/19_dynamic_net.py``
"""

import argparse
import sys
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import numpy as np
import optax

import functorch_kit as fk

STEPS, MOST = 500, 3


def net() -> fk.nn.Model:
    """Input layer, middle layer so often, output layer; ReLU between them."""
    _, _, hidden, outputs = classroom.SIZES["B"]

    def forward(part: Any, x: Any) -> Any:
        h = jax.nn.relu(part("input", x["x"]))
        return part("output", part("middle", {"x": h, "times": x["times"]}))

    return fk.nn.graph(
        forward,
        input=fk.nn.dense(hidden),
        middle=fk.nn.loop(fk.nn.serial(dense=fk.nn.dense(hidden), relu=fk.nn.relu), MOST),
        output=fk.nn.dense(outputs),
    )


def in_python(params: Any, x: Any, times: int) -> Any:
    """The same, as a define-by-run framework writes it."""

    def dense(layer: Any, x: Any) -> Any:
        return x @ layer["kernel"] + layer["bias"][None]

    h = jnp.maximum(dense(params["input"], x), 0)
    for _ in range(times):
        h = jnp.maximum(dense(params["middle"]["dense"], h), 0)
    return dense(params["output"], h)


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, _ = classroom.data_set("B")
    model, optimizer, traces = net(), optax.sgd(1e-4, momentum=0.9), []
    params, _ = jax.jit(model.init)(jax.random.key(0), {"x": x, "times": jnp.int32(0)})

    def loss(params: Any, times: Any) -> Any:
        y_pred, _ = model.apply(params, (), {"x": x, "times": times})
        return fk.losses.squared_error(y_pred, y).sum()

    @jax.jit
    def step(params: Any, memory: Any, times: Any) -> tuple[Any, Any, Any]:
        traces.append(times)
        value, slopes = jax.value_and_grad(loss)(params, times)
        updates, memory = optimizer.update(slopes, memory, params)
        return optax.apply_updates(params, updates), memory, value

    agrees = [
        classroom.agree(
            model.apply(params, (), {"x": x, "times": jnp.int32(times)})[0],
            in_python(params, x, times),
        )
        for times in range(MOST + 1)
    ]
    depths = np.random.default_rng(0).integers(0, MOST + 1, STEPS).astype(np.int32)
    memory, values = optimizer.init(params), []
    for times in depths:
        params, memory, value = step(params, memory, times)
        values.append(value)
    losses = np.asarray(values)
    ends = {int(times): float(losses[depths == times][-1]) for times in range(MOST + 1)}
    figures = {
        "loss at first": losses[0],
        **{f"last loss with the middle used {times} times": end for times, end in ends.items()},
        "compiled programs": len(traces),
    }
    claims = {
        "all four depths were drawn": len(set(depths.tolist())) == MOST + 1,
        "each depth is what a Python loop computes": all(agrees),
        "one program runs every depth": len(traces) == 1,
        "the loss of each depth falls to less than a twentieth": all(
            end < losses[0] / 20 for end in ends.values()
        ),
    }
    return classroom.Shown(figures, claims, {"losses": losses})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
