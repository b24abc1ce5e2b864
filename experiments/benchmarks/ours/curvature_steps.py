"""Milliseconds of products with curvature matrices, and of a neural tangent kernel.

ResNet-18 with the stem for small images on 32 images of 32 × 32, in evaluation:

- ``gradient``: of the mean cross-entropy, the unit that products are counted in;
- ``hessian_vector``, ``gauss_newton_vector``: a product, as conjugate gradients or Lanczos ask for
  many on the same batch, whose linearisation is kept.

``ntk``: the kernel, summed over the outputs, of the CNN of functorch's NTK tutorial (convolutions
3→32→32→32 of 3 × 3, 21632→10) between 20 and 5 images of 32 × 32, by the method that ``ntk``
measured to be the fastest.

A sample is so many steps. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import functorch_kit as fk
from functorch_kit.transforms import curvature

Stretch = Callable[[int], None]


def _resnet18() -> tuple:
    model = fk.models.resnet(fk.models.ResNetConfig(depth=18, outputs=10, stem="cifar"))
    x = jax.random.normal(jax.random.key(0), (32, 32, 32, 3))
    batch = {"x": x, "y": jnp.arange(32, dtype=jnp.int32) % 10}
    params, state = jax.jit(model.init)(jax.random.key(1), x)

    def outputs(params, batch):
        return model.apply(params, state, batch["x"])[0]

    def losses(z, batch):
        return fk.losses.softmax_cross_entropy(z, batch["y"])

    return outputs, losses, params, batch


def repeated(step: Callable[..., object], *arguments: object) -> Stretch:
    """The same step again and again, each waited for."""

    def stretch(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(step(*arguments))

    return stretch


def gradient() -> Stretch:
    outputs, losses, params, batch = _resnet18()

    def value(params, batch):
        return jnp.mean(losses(outputs(params, batch), batch))

    return repeated(jax.jit(jax.grad(value)), params, batch)


def hessian_vector() -> Stretch:
    outputs, losses, params, batch = _resnet18()

    def all_losses(params, batch):
        return losses(outputs(params, batch), batch)

    return repeated(curvature.hessian(all_losses, params, batch), params)


def gauss_newton_vector() -> Stretch:
    outputs, losses, params, batch = _resnet18()
    return repeated(curvature.gauss_newton(outputs, losses, params, batch), params)


def ntk() -> Stretch:
    layers = {}
    for index in range(3):
        layers[f"conv_{index}"] = fk.nn.conv(32, (3, 3), padding="VALID")
        layers[f"relu_{index}"] = fk.nn.relu
    model = fk.nn.serial(**layers, flatten=fk.nn.flatten(), head=fk.nn.dense(10))
    x1, x2 = (
        jax.random.normal(jax.random.key(seed), (count, 32, 32, 3))
        for seed, count in enumerate((20, 5))
    )
    params, _ = jax.jit(model.init)(jax.random.key(2), x1)

    def f(params, x):
        return model.apply(params, (), x)[0]

    method = fk.transforms.ntk(f, params, x1, x2, outputs="trace").method
    return repeated(
        lambda: fk.transforms.ntk(f, params, x1, x2, outputs="trace", method=method).values
    )


WORKS = {
    "gradient": gradient,
    "hessian_vector": hessian_vector,
    "gauss_newton_vector": gauss_newton_vector,
    "ntk": ntk,
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=2, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    fk.program.use_cache()
    stretch, samples = WORKS[options.work](), []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        stretch(options.steps)
        samples.append((time.perf_counter() - began) / options.steps * 1e3)
    print(json.dumps({"samples": samples[1:], "unit": "ms/step"}))


if __name__ == "__main__":
    main()
