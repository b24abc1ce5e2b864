"""The digits CNN as an Equinox loop: ``eqx.filter_jit`` around one step, as its examples do."""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import equinox as eqx
import jax
import numpy as np
import optax

options = digits_arrays.options(__doc__).parse_args()
x, y = digits_arrays.training_digits()
x = x.reshape(-1, 1, 8, 8)


class CNN(eqx.Module):
    """Two convolutions, a pool, a dense layer with dropout, a dense head."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    dense: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Conv2d(1, 32, 3, padding="SAME", key=keys[0])
        self.second = eqx.nn.Conv2d(32, 64, 3, padding="SAME", key=keys[1])
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.dense = eqx.nn.Linear(1024, 128, key=keys[2])
        self.dropout = eqx.nn.Dropout(0.3)
        self.head = eqx.nn.Linear(128, 10, key=keys[3])

    def __call__(self, x, key):
        """Logits (10,) of one image x (1, 8, 8)."""
        x = self.pool(jax.nn.relu(self.second(jax.nn.relu(self.first(x)))))
        return self.head(self.dropout(jax.nn.relu(self.dense(x.reshape(-1))), key=key))


model = CNN(jax.random.key(0))
adam = optax.adam(1e-3)
opt_state = adam.init(eqx.filter(model, eqx.is_inexact_array))
key = jax.random.key(1)
generator = np.random.default_rng(0)


@eqx.filter_value_and_grad
def loss(model, x, y, keys):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x, keys), y).mean()


@eqx.filter_jit
def step(model, opt_state, key, x, y):
    key, now = jax.random.split(key)
    value, gradients = loss(model, x, y, jax.random.split(now, len(x)))
    updates, opt_state = adam.update(gradients, opt_state, model)
    return eqx.apply_updates(model, updates), opt_state, key, value


def epoch() -> int:
    global model, opt_state, key
    steps, value = 0, None
    for chosen in digits_arrays.batches(len(x), generator):
        model, opt_state, key, value = step(model, opt_state, key, x[chosen], y[chosen])
        steps += 1
    jax.block_until_ready(value)
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
