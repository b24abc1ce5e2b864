"""Microseconds of one jitted training step on the digits, told by ``fk.compare`` or a bare loop.

The bare loop is the reference: a stretch of calls, the state of one going into the next, one wait
at its end, time over calls; as steady training does it. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
import optax

import functorch_kit as fk


def prepare(work: str) -> tuple[Any, ...]:
    """A pure step, and its arguments."""
    model = {
        "digits_mlp": lambda: fk.models.mlp(fk.models.MLPConfig()),
        "digits_cnn": lambda: fk.models.cnn(fk.models.CNNConfig()),
    }[work]()
    data, optimizer = fk.data.digits(batch_size=64), optax.adam(1e-3)
    state = fk.train.init_state(model, optimizer, data.train.spec["x"])
    step = fk.train.make_train_step(fk.train.classification(model), optimizer)
    return step, {}, state, jax.device_put(data.train(0))


def by_compare(calls: int, step: Any, *arguments: Any) -> list[float]:
    """The median of compare's row."""
    compared = fk.compare(step, *arguments, carry=1, variants=("jit",), rounds=7, seconds=2.0)
    (row,) = compared.variants
    assert row.median_seconds is not None, row.error
    return [row.median_seconds * 1e6]


def by_hand(calls: int, step: Any, hparams: Any, state: Any, batch: Any) -> list[float]:
    """Seven stretches, after one that does not count."""
    jitted, found = jax.jit(step), []
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(calls):
            state, metrics = jitted(hparams, state, batch)
        jax.block_until_ready((state, metrics))  # pyright: ignore[reportPossiblyUnboundVariable]
        found.append((time.perf_counter() - began) / calls * 1e6)
    return found[1:]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=["digits_mlp", "digits_cnn"])
    parser.add_argument("way", choices=["compare", "bare_loop"])
    parser.add_argument("--calls", type=int, default=200, help="calls in a stretch")
    chosen = parser.parse_args()
    measure = by_compare if chosen.way == "compare" else by_hand
    samples = measure(chosen.calls, *prepare(chosen.work))
    print(json.dumps({"samples": samples, "unit": "µs/step"}))


if __name__ == "__main__":
    main()
