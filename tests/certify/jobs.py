"""Jobs to verify, imported by their file in processes of their own; some with a planted break."""

import itertools
import os
from typing import Any

import numpy as np
import optax

import functorch_kit as fk


def sound(data_seed: int = 0) -> dict[str, Any]:
    """Dropout, batch norm, an average, shuffled data: whatever a resume could lose."""
    model = fk.nn.serial(
        first=fk.nn.dense(8),
        norm=fk.nn.batch_norm(),
        act=fk.nn.relu,
        drop=fk.nn.dropout(0.2),
        head=fk.nn.dense(2),
    )
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    return {
        "model": model,
        "objective": fk.train.classification(model),
        "optimizer": optax.adamw(3e-3),
        "data": fk.data.arrays(x, y, batch_size=16, seed=data_seed),
        "options": fk.train.Options(ema=0.9),
        "nonfinite": "skip",
        "steps": 1,
        "seed": 1,
    }


def with_an_order_of_the_process() -> dict[str, Any]:
    """Its data come in another order in each process."""
    return sound(os.getpid())


def with_a_rate_that_restarts() -> dict[str, Any]:
    """Its optimizer multiplies the first three updates of each process by ten: hidden state."""
    import jax

    calls = itertools.count()
    plain = optax.adamw(3e-3)

    def update(updates, state, params=None):
        updates, state = plain.update(updates, state, params)
        factor = jax.pure_callback(
            lambda: np.float32(10 if next(calls) < 3 else 1),
            jax.ShapeDtypeStruct((), np.float32),
        )
        return jax.tree.map(lambda leaf: leaf * factor, updates), state

    return sound() | {"optimizer": optax.GradientTransformation(plain.init, update)}


def with_a_patience_that_restarts() -> dict[str, Any]:
    """It stops at its process' sixth evaluation: a resumed run goes on for longer."""
    calls = itertools.count(1)
    return sound() | {"stop": lambda rows: next(calls) == 6}


def that_stops_early() -> dict[str, Any]:
    """It ends before it can be killed."""
    return sound() | {"stop": lambda rows: True}


def that_is_refused() -> dict[str, Any]:
    """Its optimizer is no optimizer."""
    return sound() | {"optimizer": 3}
