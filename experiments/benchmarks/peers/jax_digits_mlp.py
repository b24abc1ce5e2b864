"""The digits MLP as a bare hand-written loop over ``jax.jit``, with nothing on."""

from __future__ import annotations

import digits_arrays
import jax
import jax.numpy as jnp
import numpy as np
import optax

options = digits_arrays.options(__doc__).parse_args()
x, y = digits_arrays.training_digits()
sizes = (64, 128, 128, 10)
adam = optax.adam(1e-3)


def init(key):
    layers = []
    keys = jax.random.split(key, 3)
    for layer_key, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True):
        layers.append((jax.nn.initializers.lecun_normal()(layer_key, (n, m)), jnp.zeros(m)))
    return layers


def loss(params, x, y):
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y).mean()


def step(params, opt_state, x, y):
    value, gradients = jax.value_and_grad(loss)(params, x, y)
    updates, opt_state = adam.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


jitted = jax.jit(step, donate_argnums=(0, 1))
params = init(jax.random.key(0))
opt_state = adam.init(params)
generator = np.random.default_rng(0)


def epoch() -> int:
    global params, opt_state
    steps, value = 0, None
    for chosen in digits_arrays.batches(len(x), generator):
        params, opt_state, value = jitted(params, opt_state, x[chosen], y[chosen])
        steps += 1
    jax.block_until_ready(value)
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
