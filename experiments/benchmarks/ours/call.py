"""Microseconds a call of a function that does next to nothing, as a ``Program`` or as JAX's own.

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import functorch_kit as fk


def add(state: dict[str, jax.Array], x: jax.Array) -> dict[str, jax.Array]:
    """Thirty additions of scalars: nothing beside the dispatch."""
    return {name: leaf + x for name, leaf in state.items()}


def prepare(way: str) -> Callable[[], Any]:
    """A call, compiled and ready."""
    state, x = {f"leaf_{index}": jnp.zeros(()) for index in range(30)}, jnp.ones(())
    if way == "program":
        call = fk.program.compile(add, state, x, name="add")
    else:
        call = jax.jit(add, keep_unused=True).lower(state, x).compile()
    return lambda: call(state, x)


def measure(call: Callable[[], Any], calls: int, samples: int) -> list[float]:
    """Microseconds a call, sample by sample, after one that does not count."""
    found: list[float] = []
    for _ in range(samples + 1):
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)  # pyright: ignore[reportPossiblyUnboundVariable]
        found.append((time.perf_counter() - began) / calls * 1e6)
    return found[1:]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=["program", "compiled"])
    parser.add_argument("--calls", type=int, default=5000, help="calls in a sample")
    parser.add_argument("--samples", type=int, default=7)
    options = parser.parse_args()
    samples = measure(prepare(options.way), options.calls, options.samples)
    print(json.dumps({"samples": samples, "unit": "µs/call"}))


if __name__ == "__main__":
    main()
