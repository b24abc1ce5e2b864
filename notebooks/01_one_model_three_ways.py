# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One model three ways
#
# The two-layer net of the CS231n lecture, `max(x w1, 0) w2`, on 64 records of standard normal
# numbers: in NumPy with the backward pass by hand, in JAX operation by operation, and compiled.
# All three compute the same; what differs is who writes the gradient, and who runs it.

# %%
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

FULL = os.environ.get("FULL") == "1"  # the lecture's 500 steps; 50 are enough to see it
STEPS = 500 if FULL else 50
RATE = 1e-6

random = np.random.default_rng(0)
x, y = random.standard_normal((64, 1000)), random.standard_normal((64, 10))
w1, w2 = random.standard_normal((1000, 100)), random.standard_normal((100, 10))

# %% [markdown]
# ## By hand
# The forward pass is three lines. The backward pass is four more, and every one can be wrong.


# %%
def by_hand(w1, w2):
    h = x @ w1
    active = np.maximum(h, 0)
    error = active @ w2 - y
    slope_of_y = 2 * error
    slope_of_w2 = active.T @ slope_of_y
    slope_of_h = (slope_of_y @ w2.T) * (h > 0)
    return np.sum(error**2), x.T @ slope_of_h, slope_of_w2


began, a, b = time.perf_counter(), w1, w2
numpy_losses = []
for _ in range(STEPS):
    loss, slope_of_w1, slope_of_w2 = by_hand(a, b)
    a, b = a - RATE * slope_of_w1, b - RATE * slope_of_w2
    numpy_losses.append(loss)
print(f"NumPy: {1e3 * (time.perf_counter() - began) / STEPS:.2f} ms a step, loss {loss:.4g}")

# %% [markdown]
# ## Eager
# `jax.grad` writes the backward pass. Nothing is compiled as a whole: each operation is sent to the
# device by itself.


# %%
def loss_of(weights, x, y):
    w1, w2 = weights
    return jnp.sum((jnp.maximum(x @ w1, 0) @ w2 - y) ** 2)


def step(weights, x, y):
    loss, slopes = jax.value_and_grad(loss_of)(weights, x, y)
    return jax.tree.map(lambda w, slope: w - RATE * slope, weights, slopes), loss


def train(step):
    data = jnp.float32(x), jnp.float32(y)
    weights = jnp.float32(w1), jnp.float32(w2)
    losses = [step(weights, *data)[1]]  # the first call may have to compile: it is not timed
    began, losses = time.perf_counter(), []
    for _ in range(STEPS):
        weights, loss = step(weights, *data)
        losses.append(loss)
    jax.block_until_ready(weights)
    milliseconds = 1e3 * (time.perf_counter() - began) / STEPS
    return np.array(losses), milliseconds


eager_losses, milliseconds = train(step)
print(f"eager: {milliseconds:.2f} ms a step, loss {eager_losses[-1]:.4g}")

# %% [markdown]
# ## Compiled
# The same function under `jax.jit`: one program, in which the compiler sees everything.

# %%
compiled_losses, milliseconds = train(jax.jit(step))
print(f"compiled: {milliseconds:.2f} ms a step, loss {compiled_losses[-1]:.4g}")

# %% [markdown]
# They agree, to the rounding of 32-bit numbers.

# %%
for losses in (eager_losses, compiled_losses):
    assert np.allclose(losses, numpy_losses, rtol=1e-3)
assert numpy_losses[-1] < numpy_losses[0] / 10

# %% [markdown]
# `fk.compare` does this for any function: it times every way in turn, in one run, and says how far
# each moves the numbers.

# %%
import functorch_kit as fk

weights = jnp.float32(w1), jnp.float32(w2)
print(
    fk.compare(
        step, weights, jnp.float32(x), jnp.float32(y),
        carry=0, variants=("eager", "jit", "scan=10"), rounds=3, steps=3,
        seconds=3.0 if FULL else 0.3, matmul_size=2048 if FULL else 256,
    )
)
