"""Milliseconds (or microseconds) a step of function transforms; ``transforms.py`` says which.

A sample is so many steps. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from model_steps import functorch_net

import functorch_kit as fk

Stretch = Callable[[int], None]


class Case(NamedTuple):
    """functorch's CNN, a batch for it, and the loss of one example."""

    params: fk.types.Params
    batch: dict[str, jax.Array]
    apply: Callable[..., jax.Array]

    def loss(self, params: fk.types.Params, example: dict[str, jax.Array]) -> jax.Array:
        """Cross-entropy of one image without a batch axis."""
        logits = self.apply(params, example["x"][None])
        return fk.losses.softmax_cross_entropy(logits[0], example["y"])


def functorch_cnn(size: int = 64) -> Case:
    """Images of noise: the time does not depend on them."""
    model = functorch_net()
    x = jax.random.normal(jax.random.key(0), (size, 28, 28, 1))
    params, _ = jax.jit(model.init)(jax.random.key(1), x)
    batch = {"x": x, "y": jnp.arange(size, dtype=jnp.int32) % 10}
    return Case(params, batch, lambda params, x: model.apply(params, (), x)[0])


def repeated(step: Callable[..., object], *arguments: object) -> Stretch:
    """The same program again and again, each waited for: results of 300 MB must not pile up."""
    program = fk.program.compile(step, *arguments, name="step")

    def stretch(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(program(*arguments))

    return stretch


def per_sample_gradients() -> Stretch:
    case = functorch_cnn()
    return repeated(fk.transforms.per_example(case.loss), case.params, case.batch)


def clipped_sum() -> Stretch:
    case = functorch_cnn()
    clipped = fk.transforms.clipped_grad_sum(case.loss)
    return repeated(lambda params, batch: clipped(params, batch, 1.0), case.params, case.batch)


def plain_gradient() -> Stretch:
    """The gradient of the batch's mean loss, of a model that takes the batch as it is."""
    case = functorch_cnn()

    def value(params, batch):
        logits = case.apply(params, batch["x"])
        return jnp.mean(fk.losses.softmax_cross_entropy(logits, batch["y"]))

    return repeated(jax.grad(value), case.params, case.batch)


def dp_step() -> Stretch:
    """Clip at 1, noise of 1, SGD with a rate of 0.05, as the peer does."""
    case = functorch_cnn()
    clipped = fk.transforms.clipped_grad_sum(case.loss)

    def step(params, batch, key):
        key, own = jax.random.split(key)
        leaves, structure = jax.tree.flatten(clipped(params, batch, 1.0).grads)
        keys = jax.random.split(own, len(leaves))
        noisy = [g + jax.random.normal(k, g.shape) for g, k in zip(leaves, keys, strict=True)]
        slope = jax.tree.unflatten(structure, noisy)
        return jax.tree.map(lambda p, g: p - 0.05 / 64 * g, params, slope), key

    params, key = case.params, jax.random.key(2)
    program = fk.program.compile(step, params, case.batch, key, name="step")

    def stretch(steps: int) -> None:
        nonlocal params, key
        for _ in range(steps):
            params, key = program(params, case.batch, key)
        jax.block_until_ready(params)

    return stretch


def jacobian(inputs: int, outputs: int, transform: Callable[..., Callable[..., object]]) -> Stretch:
    """One layer, as in functorch's tutorial."""
    keys = jax.random.split(jax.random.key(0), 3)
    weight = jax.random.normal(keys[0], (inputs, outputs))
    bias, x = jax.random.normal(keys[1], (outputs,)), jax.random.normal(keys[2], (inputs,))
    return repeated(transform(lambda x, weight, bias: jnp.tanh(x @ weight + bias)), x, weight, bias)


def _best_mode(inputs: int, outputs: int) -> Stretch:
    better = jax.jacfwd if inputs < outputs else jax.jacrev
    return jacobian(inputs, outputs, better)


WORKS = {
    "per_sample_gradients": per_sample_gradients,
    "clipped_sum": clipped_sum,
    "plain_gradient": plain_gradient,
    "dp_step": dp_step,
    "jacobian_32_2048": lambda: jacobian(32, 2048, fk.transforms.jacobian),
    "jacobian_2048_32": lambda: jacobian(2048, 32, fk.transforms.jacobian),
    "best_mode_32_2048": lambda: _best_mode(32, 2048),
    "best_mode_2048_32": lambda: _best_mode(2048, 32),
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=8, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    fk.program.use_cache()
    unit, scale = ("µs/step", 1e6) if "_2048" in options.work else ("ms/step", 1e3)
    stretch, samples = WORKS[options.work](), []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        stretch(options.steps)
        samples.append((time.perf_counter() - began) / options.steps * scale)
    print(json.dumps({"samples": samples[1:], "unit": unit}))


if __name__ == "__main__":
    main()
