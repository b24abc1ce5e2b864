"""Example 1: a small graph, a = x y, b = a + z, c = sum(b), and its gradients in one line.

Command: ``python experiments/lecture/01_gradients.py``
"""

import argparse
import sys

import classroom
import jax
import jax.numpy as jnp
import numpy as np

N, D = 3, 4


def graph(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    a = x * y
    b = a + z
    return jnp.sum(b)


def example(options: argparse.Namespace) -> classroom.Shown:
    random = np.random.default_rng(0)
    x, y, z = (classroom.as_floats(random.standard_normal((N, D))) for _ in range(3))
    slopes = jax.grad(graph, argnums=(0, 1, 2))(x, y, z)
    on_the_host = np.sum(np.asarray(x) * np.asarray(y) + np.asarray(z))
    claims = {
        "the graph's value is NumPy's": classroom.agree(graph(x, y, z), on_the_host),
        "the gradient of x is y": classroom.same_bits(slopes[0], y),
        "the gradient of y is x": classroom.same_bits(slopes[1], x),
        "the gradient of z is 1": classroom.same_bits(slopes[2], jnp.ones_like(z)),
    }
    return classroom.Shown({"c": graph(x, y, z), "device": classroom.device()}, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
