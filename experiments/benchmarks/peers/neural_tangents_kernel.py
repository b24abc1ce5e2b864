"""Milliseconds of a kernel by neural-tangents, of the net and the data of ``ours``' ``ntk``.

Its default method, contraction of Jacobians, and its default form, the trace over the outputs,
compiled; ``vmap_axes=0`` tells it, as its documentation advises, that examples stand apart.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import itertools
import json
import time

import jax
import jax.numpy as jnp
import neural_tangents
from jax import lax

CHANNELS = (3, 32, 32, 32)


def init(key: jax.Array) -> dict[str, jax.Array]:
    """Kernels and biases by name."""
    params = {}
    for index, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        key, own = jax.random.split(key)
        params[f"conv_{index}"] = jax.random.normal(own, (3, 3, before, after)) / 17
        params[f"bias_{index}"] = jnp.zeros(after)
    params["dense"] = jax.random.normal(key, (21632, 10)) / 147
    params["bias"] = jnp.zeros(10)
    return params


def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Images (batch, 32, 32, 3) -> logits."""
    for index in range(3):
        kernel = params[f"conv_{index}"]
        layout = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)
        x = jax.nn.relu(x + params[f"bias_{index}"])
    return x.reshape(x.shape[0], -1) @ params["dense"] + params["bias"]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=["ntk"])
    parser.add_argument("--steps", type=int, default=2, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    x1, x2 = (
        jax.random.normal(jax.random.key(seed), (count, 32, 32, 3))
        for seed, count in enumerate((20, 5))
    )
    params = init(jax.random.key(2))
    kernel = jax.jit(
        neural_tangents.empirical_ntk_fn(lambda params, x: apply(params, x), vmap_axes=0)
    )
    samples = []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        for _ in range(options.steps):
            jax.block_until_ready(kernel(x1, x2, params))
        samples.append((time.perf_counter() - began) / options.steps * 1e3)
    print(json.dumps({"samples": samples[1:], "unit": "ms/step"}))


if __name__ == "__main__":
    main()
