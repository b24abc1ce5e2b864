"""Jacobians forwards, backwards and through a bottleneck (functorch's Jacobians tutorial).

``tanh(x @ W + b)`` of 16 → 16, of 32 → 2048 and of 2048 → 32, as in the tutorial, and
2048 → 16 → 2048, where neither direction is good. Printed: microseconds by each mode, and how far
each is from ``jax.jacrev``.

Command: ``python experiments/functorch/jacobians.py``. Some seconds on two cores. Expected:
``auto`` takes what the better mode takes, and of the bottleneck less than either.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import task

from functorch_kit import transforms
from functorch_kit.transforms import TransformError


def run(options: argparse.Namespace) -> task.Figures:
    wide = 64 if options.quick else 2048
    for sizes in ((16, 16), (32, wide), (wide, 32), (wide, 16, wide)):
        keys = jax.random.split(jax.random.key(0), len(sizes))
        weights = [
            jax.random.normal(key, pair) / pair[0] ** 0.5
            for key, pair in zip(keys, itertools.pairwise(sizes), strict=False)
        ]
        x = jax.random.normal(keys[-1], (sizes[0],))

        def layers(x, weights):
            for weight in weights:
                x = jnp.tanh(x @ weight)
            return x

        name = "_".join(map(str, sizes))
        expected = jax.jacrev(layers)(x, weights)
        for mode in ("forward", "reverse", "mixed", "auto"):
            way = transforms.jacobian(layers, mode)
            try:
                found = way(x, weights)
            except TransformError:  # no narrow place to go through
                continue
            yield f"{name}_{mode}_us", 1e3 * task.milliseconds(way, x, weights)
            yield f"{name}_{mode}_difference", jnp.max(jnp.abs(found - expected))


if __name__ == "__main__":
    task.main(run, __doc__)
