"""Small nets in float64, and their matrices from explicit Jacobians and Hessians."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from functorch_kit import nn
from functorch_kit.losses import softmax_cross_entropy


class Case(NamedTuple):
    """A net, its losses and data: what every matrix is made from."""

    outputs: Callable[..., Any]
    losses: Callable[..., Any]
    params: Any
    batch: dict[str, Any]

    def all_losses(self, params: Any, batch: dict[str, Any]) -> Any:
        return self.losses(self.outputs(params, batch), batch)

    def flat(self) -> tuple[Any, Callable[..., Any]]:
        return ravel_pytree(self.params)


def _tied(params, batch):
    """One table both ways, as in a language model."""
    return jnp.tanh(batch["x"] @ params["table"]) @ params["table"].T + params["bias"][None]


def _model(model: nn.Model, train: bool) -> tuple[Any, Callable[..., Any]]:
    params, state = model.init(jax.random.key(1), jnp.ones((1, 4)))
    # Statistics as if it had been trained.
    state = jax.tree.map(lambda leaf: leaf + jnp.linspace(0.1, 0.7, leaf.size), state)

    def outputs(params, batch):
        key = jax.random.key(3) if train else None
        return model.apply(params, state, batch["x"], key=key, train=train)[0]

    return params, outputs


def _nets() -> dict[str, Any]:
    norm = nn.serial(a=nn.dense(3), norm=nn.batch_norm(), act=nn.tanh, b=nn.dense(4))
    drop = nn.serial(a=nn.dense(3), act=nn.tanh, drop=nn.dropout(0.4), b=nn.dense(4))
    table = 0.5 * jax.random.normal(jax.random.key(0), (4, 3))
    return {
        "tied": ({"table": table, "bias": jnp.zeros(4)}, _tied),
        "batch_norm": _model(norm, train=False),
        "dropout": _model(drop, train=True),
    }


def _cross_entropy(z, batch):
    return softmax_cross_entropy(z, batch["y"])


_KNOWN: dict[str, Case] = {}


@pytest.fixture(params=["tied", "batch_norm", "dropout"])
def case(request: pytest.FixtureRequest, x64: None) -> Case:
    """The same functions for every test, so that their programs are compiled once."""
    return _case(request.param)


@pytest.fixture
def tied(x64: None) -> Case:
    """One of them, for what does not depend on the net."""
    return _case("tied")


def _case(name: str) -> Case:
    if not _KNOWN:
        generator = np.random.default_rng(0)
        batch = {
            "x": jnp.asarray(generator.normal(size=(6, 4))),
            "y": jnp.asarray(generator.integers(0, 4, 6)),
            "weight": jnp.array([1.0, 2.0, 0.5, 0.0, 1.0, 1.0]),
        }
        for net, (params, outputs) in _nets().items():
            _KNOWN[net] = Case(outputs, _cross_entropy, params, batch)
    return _KNOWN[name]
