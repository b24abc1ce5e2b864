"""The digits MLP as an Equinox loop: ``eqx.filter_jit`` around one step, as its examples do."""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import equinox as eqx
import jax
import numpy as np
import optax

options = digits_arrays.options(__doc__).parse_args()
x, y = digits_arrays.training_digits()
model = eqx.nn.MLP(64, 10, width_size=128, depth=2, key=jax.random.key(0))
adam = optax.adam(1e-3)
opt_state = adam.init(eqx.filter(model, eqx.is_inexact_array))
generator = np.random.default_rng(0)


@eqx.filter_value_and_grad
def loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


@eqx.filter_jit
def step(model, opt_state, x, y):
    value, gradients = loss(model, x, y)
    updates, opt_state = adam.update(gradients, opt_state, model)
    return eqx.apply_updates(model, updates), opt_state, value


def epoch() -> int:
    global model, opt_state
    steps, value = 0, None
    for chosen in digits_arrays.batches(len(x), generator):
        model, opt_state, value = step(model, opt_state, x[chosen], y[chosen])
        steps += 1
    jax.block_until_ready(value)
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
