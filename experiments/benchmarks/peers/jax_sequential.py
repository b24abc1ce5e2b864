"""Seconds that a hand-written loop over a grid of jobs takes, one compiled program for all.

Learning rate and key are arguments of it. The dense nets train in one ``lax.scan`` over all steps,
data on the device, which is not shuffled where a batch is all of it. The CNN trains in single
jitted steps, because XLA's convolutions are slow in a loop on a CPU. Nothing is logged, evaluated
or saved. Compiling is part of it, importing JAX is not; the compilation cache is on, as ours is.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

SIZES = {"spirals": (2, 32, 2), "digits_mlp": (64, 128, 128, 10)}
STEPS = {"spirals": 2000, "digits_mlp": 394, "digits_cnn": 394}


def records(experiment: str) -> tuple[np.ndarray, np.ndarray, int]:
    """x, y and the batch size."""
    if experiment == "spirals":
        random = np.random.default_rng(0)
        time_, y = np.linspace(0, 1, 100), random.integers(0, 2, 100)
        radius, angle = np.sqrt(time_) * (2 * y - 1), 2 * math.pi * time_
        x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        x += 0.05 * random.standard_normal(x.shape)
        return x.astype(np.float32), y.astype(np.int32), 100
    import digits_arrays

    x, y = digits_arrays.training_digits()
    return (x.reshape(-1, 8, 8, 1) if experiment == "digits_cnn" else x), y, digits_arrays.BATCH


def init(experiment: str, key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Kernels and biases."""
    if experiment == "digits_cnn":
        shapes = [(3, 3, 1, 32), (3, 3, 32, 64), (1024, 128), (128, 10)]
    else:
        shapes = list(itertools.pairwise(SIZES[experiment]))
    lecun = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(shapes))
    return [(lecun(k, s), jnp.zeros(s[-1])) for k, s in zip(keys, shapes, strict=True)]


def loss(experiment: str, params, x, y, key):
    if experiment == "digits_cnn":
        for kernel, bias in params[:2]:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4)).reshape(n, -1)
        params = params[2:]
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    if experiment == "digits_cnn":
        x = jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0)
    kernel, bias = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y).mean()


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(STEPS))
    parser.add_argument("--rates", default="0.1,0.2")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int)
    chosen = parser.parse_args()
    name, steps = chosen.experiment, chosen.steps or STEPS[chosen.experiment]
    jax.config.update("jax_compilation_cache_dir", os.environ["XDG_CACHE_HOME"] + "/by_hand")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    x, y, batch = records(name)
    make = optax.sgd if name == "spirals" else optax.adam
    rates, seeds = map(float, chosen.rates.split(",")), map(int, chosen.seeds.split(","))
    jax.devices()  # the backend starts
    began = time.perf_counter()
    on_device = jax.device_put((x, y))

    def begin(key):
        params = init(name, key)
        return params, make(0.0).init(params)

    def step(data, rate, key, state, row):
        (params, opt_state), (number, chosen_rows) = state, row
        x, y = (array[chosen_rows] for array in data) if batch < len(data[0]) else data
        value, gradients = jax.value_and_grad(
            lambda params: loss(name, params, x, y, jax.random.fold_in(key, number))
        )(params)
        updates, opt_state = make(rate).update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    begun, single = jax.jit(begin), jax.jit(step, donate_argnums=3)

    @jax.jit
    def whole(data, rate, key, rows):
        return jax.lax.scan(lambda s, row: step(data, rate, key, s, row), begin(key), rows)[1][-1]

    losses = []
    for rate, seed in itertools.product(rates, seeds):
        key, random = jax.random.key(seed), np.random.default_rng(seed)
        epochs = -(-steps * batch // len(x))
        order = np.concatenate([random.permutation(len(x)) for _ in range(epochs)])
        rows = np.arange(steps), order[: steps * batch].reshape(steps, batch)
        if name != "digits_cnn":
            losses.append(float(whole(on_device, rate, key, rows)))
            continue
        state, value = begun(key), jnp.zeros(())
        for number, row in zip(*rows, strict=True):
            state, value = single(on_device, rate, key, state, (number, row))
        losses.append(float(value))
    seconds = time.perf_counter() - began
    mean = math.fsum(losses) / len(losses)
    print(json.dumps({"samples": [seconds], "unit": "s", "how": "by hand", "mean_loss": mean}))


if __name__ == "__main__":
    main()
