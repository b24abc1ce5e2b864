"""The neural tangent kernel of a CNN (functorch's NTK tutorial).

Convolutions 3→32→32→32 of 3 × 3 on images of 32 × 32, a dense layer of 21632 → 10; 20 training and
5 test images, as in the tutorial. Printed: what each method was measured to take and which one was
chosen, the memory that the Jacobians would take at once and the tile under a budget of 64 MB, and
how far a product with the kernel is from the kernel times the vector.

Command: ``python experiments/functorch/ntk.py``. Under a minute on two cores. Expected: a relative
difference of rounding.
"""

import argparse

import jax
import jax.numpy as jnp
import task

from functorch_kit import nn, transforms


def cnn(channels: int) -> nn.Model:
    layers = {}
    for index in range(3):
        layers[f"conv_{index}"] = nn.conv(channels, (3, 3), padding="VALID")
        layers[f"relu_{index}"] = nn.relu
    return nn.serial(**layers, flatten=nn.flatten(), head=nn.dense(10))


def run(options: argparse.Namespace) -> task.Figures:
    size, channels, counts = (10, 2, (3, 2)) if options.quick else (32, 32, (20, 5))
    model = cnn(channels)
    x_train, x_test = (
        jax.random.normal(jax.random.key(seed), (count, size, size, 3))
        for seed, count in enumerate(counts)
    )
    params, _ = model.init(jax.random.key(2), x_train)

    def f(params, x):
        return model.apply(params, (), x)[0]

    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    yield "jacobian_megabytes", sum(counts) * 10 * parameters * 4 / 1e6
    for outputs in ("full",) if options.quick else ("full", "trace"):
        kernel = transforms.ntk(f, params, x_train, x_test, outputs=outputs)
        yield f"{outputs}_shape", kernel.values.shape
        for method, seconds in kernel.seconds.items():
            yield f"{outputs}_{method}_ms", 1e3 * seconds
        yield f"{outputs}_method", kernel.method
    small = transforms.ntk(f, params, x_train, x_test, method="jacobian", memory=64_000_000)
    yield "tile_in_64_megabytes", small.tile
    v = jax.random.normal(jax.random.key(3), (counts[1], 10))
    product = transforms.ntk_product(f, params, x_train, x_test)(v)
    expected = jnp.einsum("aboq,bq->ao", small.values, v)
    yield "product_difference", jnp.max(jnp.abs(product - expected)) / jnp.max(jnp.abs(expected))


if __name__ == "__main__":
    task.main(run, __doc__)
