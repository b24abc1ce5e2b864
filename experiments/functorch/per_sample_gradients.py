"""Gradients of each image by itself, and their noise scale (functorch's per-sample gradients).

The tutorial's CNN (convolutions 1→32→64 of 3 × 3, a pool, 9216→128→10) and its batch of 64 images
of 28 × 28, here of noise. Printed: how far the gradients are from a loop of ``jax.grad``, what each
way takes, the noise scale of the batch, and what a program for norms and mean holds in between for
batches of several sizes, with a budget of 64 MB.

Command: ``python experiments/functorch/per_sample_gradients.py``. Half a minute on two cores.
Expected: differences of rounding, a quarter of the time of ``jax.vmap(jax.grad)``, and the same
memory for every size.
"""

import argparse

import jax
import jax.numpy as jnp
import task

from functorch_kit import losses, nn, transforms


def cnn(width: int) -> nn.Model:
    """The tutorial's at a width of 32."""
    return nn.serial(
        conv_0=nn.conv(width, (3, 3), padding="VALID"),
        relu_0=nn.relu,
        conv_1=nn.conv(2 * width, (3, 3), padding="VALID"),
        relu_1=nn.relu,
        pool=nn.max_pool((2, 2)),
        flatten=nn.flatten(),
        dense=nn.dense(4 * width),
        relu=nn.relu,
        head=nn.dense(10),
    )


def run(options: argparse.Namespace) -> task.Figures:
    size, side, width = (6, 8, 2) if options.quick else (64, 28, 32)
    model = cnn(width)
    images = jax.random.normal(jax.random.key(0), (4 * size, side, side, 1))
    labels = jax.random.randint(jax.random.key(1), (4 * size,), 0, 10)
    params, _ = model.init(jax.random.key(2), images)

    def loss(params, example):
        logits, _ = model.apply(params, (), example["x"][None])
        return losses.softmax_cross_entropy(logits[0], example["y"])

    def batch(count: int) -> dict[str, jax.Array]:
        return {"x": images[:count], "y": labels[:count]}

    ours = transforms.per_example(loss)
    by_vmap = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    one = jax.jit(jax.grad(loss))

    def by_loop(params, batch):
        each = [one(params, jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(size)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    found, expected = ours(params, batch(size))["grads"], by_loop(params, batch(size))
    apart = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), found, expected)
    yield "largest_difference_from_a_loop", max(map(float, jax.tree.leaves(apart)))
    for name, way in {"per_example": ours, "vmap": by_vmap, "loop": by_loop}.items():
        yield f"{name}_ms", task.milliseconds(way, params, batch(size))

    noise = transforms.per_example(loss, ("noise_scale",))(params, batch(size))["noise_scale"]
    yield "noise_scale", noise.scale
    budget = 100_000 if options.quick else 64_000_000
    reduced = transforms.per_example(loss, ("norms", "mean"), memory=budget)
    for count in (2 * size, 4 * size):
        program = jax.jit(reduced).lower(params, batch(count)).compile()
        found = program.memory_analysis()
        yield f"bytes_in_between_{count}", found.temp_size_in_bytes if found else float("nan")


if __name__ == "__main__":
    task.main(run, __doc__)
