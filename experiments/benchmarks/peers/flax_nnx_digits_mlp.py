"""The digits MLP as a Flax NNX loop: the step of its tutorial under ``nnx.jit``.

``--cached-partial`` binds model and optimizer to the step once (``nnx.cached_partial``), which
Flax's guide to performance recommends for loops of small steps.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import digits_arrays
import jax
import numpy as np
import optax
from flax import nnx

parser = digits_arrays.options(__doc__)
parser.add_argument("--cached-partial", action="store_true")
options = parser.parse_args()
x, y = digits_arrays.training_digits()


class MLP(nnx.Module):
    """64-128-128-10."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(64, 128, rngs=rngs)
        self.second = nnx.Linear(128, 128, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        """Logits (batch, 10) of x (batch, 64)."""
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))))


@nnx.jit
def train_step(model: MLP, optimizer: nnx.Optimizer, x, y):
    def loss(model: MLP):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


model = MLP(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
generator = np.random.default_rng(0)
if options.cached_partial:
    step = nnx.cached_partial(train_step, model, optimizer)
else:

    def step(x, y):
        return train_step(model, optimizer, x, y)


def epoch() -> int:
    steps, value = 0, None
    for chosen in digits_arrays.batches(len(x), generator):
        value = step(x[chosen], y[chosen])
        steps += 1
    jax.block_until_ready(value)
    return steps


digits_arrays.time_epochs(epoch, options.epochs, options.samples)
