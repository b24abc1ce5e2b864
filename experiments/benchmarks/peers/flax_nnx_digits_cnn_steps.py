"""The digits CNN as a Flax NNX loop, model and optimizer bound once (``nnx.cached_partial``)."""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import jax
import numpy as np
import optax
from flax import nnx

options = digits_arrays.options(__doc__).parse_args()
x, y = digits_arrays.training_digits()
x = x.reshape(-1, 8, 8, 1)


class CNN(nnx.Module):
    """Two convolutions, a pool, a dense layer with dropout, a dense head."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.second = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(1024, 128, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        """Logits (batch, 10) of x (batch, 8, 8, 1)."""
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        return self.head(self.dropout(nnx.relu(self.dense(x))))


@nnx.jit
def train_step(model: CNN, optimizer: nnx.Optimizer, x, y):
    def loss(model: CNN):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


model = CNN(nnx.Rngs(0))
model.train()
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
generator = np.random.default_rng(0)
step = nnx.cached_partial(train_step, model, optimizer)


def epoch() -> int:
    steps, value = 0, None
    for chosen in digits_arrays.batches(len(x), generator):
        value = step(x[chosen], y[chosen])
        steps += 1
    jax.block_until_ready(value)
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
