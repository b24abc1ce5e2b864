"""Every option composes with every other one: what one alone does, it does beside another."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import nn
from functorch_kit.train import Options, TrainState, classification, init_state, make_train_step

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly", "compiled_once")

MODEL = nn.serial(body=nn.dense(4), act=nn.tanh, head=nn.dense(3))
BATCH = {
    "x": jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32),
    "y": jnp.arange(8) % 3,
    "weight": jnp.arange(8.0),
}
NEUTRAL: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate": 4},
    "remat": {"remat": ("body", "head")},
    "ema": {"ema": 0.9, "evaluate": "ema"},
    "gradient_norm": {"gradient_norm": True},
}
"""They change what a step costs or tells, not what it does to the parameters."""
MOVING: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "frozen": {"frozen": ("body",)},
}
OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
    "adaptive": optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(0.1)),
    "decay": optax.adamw(
        1e-2, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
    ),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True),
}


@functools.cache
def _after(names: frozenset[str], optimizer: str = "adam") -> TrainState:
    """The state after three steps with the options of these names."""
    settings: dict[str, Any] = {}
    for name in sorted(names):
        settings |= (NEUTRAL | MOVING)[name]
    options = Options(**settings)
    state = init_state(MODEL, OPTIMIZERS[optimizer], BATCH["x"], options=options)
    step = jax.jit(make_train_step(classification(MODEL), OPTIMIZERS[optimizer], options))
    for _ in range(3):
        state, metrics = step({}, state, BATCH)
        assert jnp.isfinite(metrics["loss"].compute())
    return state


def _apart(a: TrainState, b: TrainState) -> float:
    leaves = zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    return max(float(jnp.abs(x - y).max()) for x, y in leaves)


@pytest.mark.parametrize("pair", list(itertools.combinations(NEUTRAL, 2)), ids="+".join)
def test_two_options_that_move_nothing_move_nothing_together(pair: tuple[str, str]):
    assert _apart(_after(frozenset(pair)), _after(frozenset())) < 1e-5


@pytest.mark.parametrize("moving", MOVING)
@pytest.mark.parametrize("neutral", NEUTRAL)
def test_an_option_that_moves_nothing_leaves_what_another_does(neutral: str, moving: str):
    alone, together = _after(frozenset([moving])), _after(frozenset([neutral, moving]))
    # Rounding in halves depends on the order of sums: 8 bits of 1, times the step of Adam.
    tolerance = 1e-5 if moving == "frozen" else 1e-2
    assert _apart(alone, together) < tolerance
    assert _apart(alone, _after(frozenset())) > 1e-5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_frozen_parameters_stay_in_half_precision_as_well(precision: str):
    frozen = _after(frozenset(["frozen", precision])).params["body"]
    start = init_state(MODEL, OPTIMIZERS["adam"], BATCH["x"]).params["body"]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, frozen, start))


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "adam"])
@pytest.mark.parametrize("name", [*NEUTRAL, "frozen"])
def test_every_kind_of_optimizer_goes_with_every_option(name: str, optimizer: str):
    alone, with_option = _after(frozenset(), optimizer), _after(frozenset([name]), optimizer)
    if name == "frozen":
        start = init_state(MODEL, OPTIMIZERS[optimizer], BATCH["x"]).params
        assert jnp.array_equal(with_option.params["body"]["kernel"], start["body"]["kernel"])
        assert not jnp.array_equal(with_option.params["head"]["kernel"], start["head"]["kernel"])
    else:
        assert _apart(alone, with_option) < 1e-4
