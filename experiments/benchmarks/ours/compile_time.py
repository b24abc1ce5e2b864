"""Seconds to trace, lower and compile the training step of a GPT whose one block is repeated.

The small GPT of ``ours/model_steps.py`` at another depth; nothing is read from a cache. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import optax

import functorch_kit as fk


def compile_seconds(layers: int) -> float:
    """From the Python functions to an executable."""
    model = fk.models.gpt(fk.models.GPTConfig(layers=layers, is_repeated=True))
    optimizer = optax.adamw(1e-3)
    tokens = jax.ShapeDtypeStruct((12, 64), jnp.int32)
    init = fk.train.make_init(model, optimizer, tokens)
    state = jax.eval_shape(init, {}, jax.random.key(0))
    step = fk.train.make_train_step(fk.train.language_model(model), optimizer)
    began = time.perf_counter()
    jax.jit(step).lower({}, state, {"x": tokens, "y": tokens}).compile()
    return time.perf_counter() - began


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", type=int)
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    samples: list[float] = []
    for _ in range(options.samples + 1):  # the first one also starts the backend
        jax.clear_caches()
        samples.append(compile_seconds(options.layers))
    print(json.dumps({"samples": samples[1:], "unit": "s"}))


if __name__ == "__main__":
    main()
