"""Faults planted in a stack of layers: what the search for the first bad value has to find."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from functorch_kit import nn

LAYERS = 12
PLANTED = 7


@jax.custom_vjp
def nan_on_the_way_back(y, is_planted):
    """The identity, with a gradient that is NaN where it is planted."""
    return y


def _forward(y, is_planted):
    return y, is_planted


def _backward(is_planted, g):
    return g * jnp.log(jnp.where(is_planted, -1.0, 1.0)), None


nan_on_the_way_back.defvjp(_forward, _backward)

FAULTS: dict[str, Callable[[Any, Any], Any]] = {
    "forward": lambda y, planted: y * jnp.log(jnp.where(planted, -1.0, 2.0)),
    "custom_vjp": nan_on_the_way_back,
    # 0 in the layer itself, and an infinite slope: sqrt is finite there, its derivative is not.
    "sqrt": lambda y, planted: jnp.sqrt(jnp.where(planted, 0.0, 1.0) + 0.0 * y) + y,
    "none": lambda y, planted: y,
}


def stack(fault: str, *, remat: bool = False, wrap: Callable[[Any], Any] = lambda f: f) -> nn.Model:
    """Twelve equal layers under ``blocks``, applied by one scan; layer 7 has the fault."""
    layer = nn.serial(
        norm=nn.layer_norm(),
        dense=nn.dense(4),
        tanh=nn.tanh,
    )

    def init(key, x_spec):
        def one(key):
            return layer.init(key, x_spec)[0]

        return {"blocks": jax.vmap(one)(jax.random.split(key, LAYERS))}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        def body(x, each):
            layer_params, number = each
            y, _ = layer.apply(layer_params, (), x)
            with nn.scope("planted"):
                y = nn.tag(wrap(FAULTS[fault])(y, number == PLANTED))
            return y, None

        with nn.scope("blocks"):
            rows = (params["blocks"], jnp.arange(LAYERS))
            y, _ = lax.scan(jax.checkpoint(body) if remat else body, x, rows)
        return nn.tag(y), ()

    return nn.Model(init, apply)
