"""Optax against torch.optim over 100 steps, with the settings that make them equal (N2).

The numbers were made once by ``make_optimizers.py``; PyTorch is not needed here. What cannot be
made equal: amsgrad (PyTorch keeps the largest second moment before correcting its bias, optax
after), Adafactor (PyTorch's does not clip, and scales its step otherwise), Muon (PyTorch's
iterates in bfloat16).
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.golden.make_optimizers import KEPT, PULL, SETTINGS, STEPS

FILE = Path(__file__).with_name("optimizers.npz")
BOUND = 1e-12

OPTAX = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    # PyTorch adds the decay to the gradient, before the momentum.
    "weight decay": optax.chain(optax.add_decayed_weights(0.02), optax.sgd(0.1, momentum=0.9)),
    "adam": optax.adam(0.02, b1=0.9, b2=0.99, eps=1e-8),
    # PyTorch's default decay is 0.01, optax's 0.0001.
    "adamw": optax.adamw(0.02, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05),
    # optax has no momentum_decay: a large one in PyTorch is over at the first step.
    "nadam": optax.nadam(0.02, b1=0.9, b2=0.99, eps=1e-8),
    # PyTorch adds epsilon before it corrects the bias of the second moment, optax after: none.
    "radam": optax.radam(0.02, b1=0.9, b2=0.99, eps=0.0),
    "adamax": optax.adamax(0.02, b1=0.9, b2=0.99, eps=1e-8),
    # PyTorch adds epsilon to the root, optax under it, and begins at 0.1: no epsilon, from 0.
    "adagrad": optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0),
    "adadelta": optax.adadelta(1.0, rho=0.9, eps=1e-6),
    "rmsprop": optax.rmsprop(0.02, decay=0.9, eps=1e-8, eps_in_sqrt=False),
    "rmsprop with momentum": optax.rmsprop(
        0.02, decay=0.9, eps=1e-8, eps_in_sqrt=False, momentum=0.9
    ),
    "rmsprop centered": optax.rmsprop(0.02, decay=0.9, eps=1e-8, eps_in_sqrt=False, centered=True),
}


@functools.cache
def _recorded() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {key: file[key] for key in file.files}


def _named(*path: str) -> dict[str, jax.Array]:
    prefix = "|".join(path) + "|"
    return {
        key.removeprefix(prefix): jnp.asarray(value)
        for key, value in _recorded().items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("setting", SETTINGS)
def test_after_1_10_and_100_steps_optax_is_where_pytorch_is(setting, x64, standard_promotion):
    optimizer, start = OPTAX[setting], _named("start")

    def step(carry, noise):
        params, state = carry
        slopes = jax.tree.map(lambda n, p: n + PULL * p, noise, params)
        updates, state = optimizer.update(slopes, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    _, passed = jax.jit(lambda *at: jax.lax.scan(step, *at))(
        (start, optimizer.init(start)), _named("noise")
    )
    assert len(passed["bias"]) == STEPS
    for count in KEPT:
        expected = _named(setting, str(count))
        assert expected.keys() == passed.keys()
        for name in expected:
            np.testing.assert_allclose(
                passed[name][count - 1], expected[name], rtol=BOUND, atol=BOUND
            )
