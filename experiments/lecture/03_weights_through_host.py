"""Example 3: Set A trained for 50 steps, its weights copied through NumPy in every step.

A pitfall: fed in and fetched again, the weights cross between host and device twice in each step.
Kept on the device, and their memory handed on (donated), they never do. On a CPU host and device
share their memory, so that there is little to see; on a GPU there is.

Command: ``python experiments/lecture/03_weights_through_host.py``
"""

import argparse
import sys
import time
from typing import Any

import classroom
import jax
import numpy as np

RATE = 1e-5


def through_the_host(weights: Any, x: Any, y: Any, steps: int) -> tuple[float, Any, float]:
    """Milliseconds a step, the weights at the end, and the last loss."""
    slopes_of = jax.jit(jax.value_and_grad(classroom.loss_a))
    host = [np.array(weight) for weight in weights]
    jax.block_until_ready(slopes_of(tuple(host), x, y))  # compiled before the clock starts
    began, loss = time.perf_counter(), np.inf
    for _ in range(steps):
        loss, slopes = slopes_of(tuple(host), x, y)
        for weight, slope in zip(host, slopes, strict=True):
            weight -= weight.dtype.type(RATE) * np.asarray(slope)
    return (time.perf_counter() - began) / steps * 1e3, host, float(loss)


def on_the_device(weights: Any, x: Any, y: Any, steps: int) -> tuple[float, Any, float]:
    """The same with weights that stay where they are."""

    def step(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
        loss, slopes = jax.value_and_grad(classroom.loss_a)(weights, x, y)
        return classroom.moved(weights, slopes, RATE), loss

    compiled = jax.jit(step, donate_argnums=0).lower(weights, x, y).compile()
    state = jax.tree.map(lambda weight: weight.copy(), weights)  # these may be donated
    jax.block_until_ready(state)
    began, loss = time.perf_counter(), np.inf
    for _ in range(steps):
        state, loss = compiled(state, x, y)
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / steps * 1e3, state, float(loss)


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, weights = classroom.data_set("A")
    steps = 5 if options.quick else 50
    copied_ms, copied, loss = through_the_host(weights, x, y, steps)
    resident_ms, resident, _ = on_the_device(weights, x, y, steps)
    figures = {
        "device": classroom.device(),
        "loss of the last step": loss,
        "through the host, ms a step": copied_ms,
        "on the device, ms a step": resident_ms,
        "ratio": copied_ms / resident_ms,
    }
    claims = {"both ways lead to the same weights": classroom.agree(resident, copied)}
    if jax.default_backend() != "cpu" and not options.quick:
        claims["copying through the host is slower"] = copied_ms > resident_ms
    return classroom.Shown(figures, claims, {"weights": resident})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
