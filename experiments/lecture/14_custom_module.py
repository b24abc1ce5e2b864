"""Example 14: a two-layer module of one's own: two functions, init and apply; rate 1e-4.

Command: ``python experiments/lecture/14_custom_module.py``
"""

import argparse
import importlib
import sys
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import optax

import functorch_kit as fk

sequential = importlib.import_module("12_sequential")
STEPS, RATE = 500, 1e-4


def two_layer_net(hidden: int, outputs: int) -> fk.nn.Model:
    """A module is a pair of pure functions; those inside it are called like any other."""
    first, second = fk.nn.dense(hidden), fk.nn.dense(outputs)

    def init(key: Any, x_spec: Any) -> tuple[Any, Any]:
        one, other = jax.random.split(key)
        between = jax.ShapeDtypeStruct((*x_spec.shape[:-1], hidden), x_spec.dtype)
        params = {
            "first": first.init(one, x_spec)[0],
            "second": second.init(other, between)[0],
        }
        return params, ()

    def apply(params: Any, model_state: Any, x: Any, *, key: Any = None, train: bool = False):
        h, _ = first.apply(params["first"], (), x)
        y, _ = second.apply(params["second"], (), jnp.maximum(h, 0))
        return y, model_state

    return fk.nn.Model(init, apply)


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, _ = classroom.data_set("B")
    _, _, hidden, outputs = classroom.SIZES["B"]
    model, container = two_layer_net(hidden, outputs), sequential.net()
    params, _ = jax.jit(model.init)(jax.random.key(0), x)
    optimizer = optax.sgd(RATE)
    losses, _ = classroom.descend(sequential.summed(model), params, optimizer, STEPS, x, y)
    # Parameters have the names that example 12 gave: the same tree fits both.
    same, _ = classroom.descend(sequential.summed(container), params, optimizer, STEPS, x, y)
    inside = fk.nn.serial(net=model, head=fk.nn.dense(3))
    nested, _ = inside.init(jax.random.key(0), x)
    figures = {"loss at first": losses[0], "loss of step 500": losses[-1]}
    claims = {
        "the loss falls to less than a thousandth": bool(losses[-1] < 1e-3 * losses[0]),
        "from the same weights it is the container of example 12": classroom.agree(losses, same),
        "it stands inside other models": sorted(nested["net"]) == ["first", "second"],
    }
    return classroom.Shown(figures, claims, {"losses": losses, "same": same})


if __name__ == "__main__":
    sys.exit(classroom.run(example))
