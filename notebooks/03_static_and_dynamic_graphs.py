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
# # Static and dynamic graphs
#
# A compiled program is a static graph: what it does is settled before it runs. A dynamic graph is
# made anew for every example. Conditionals, loops and nets that differ from example to example look
# like a reason for the second kind. They need not be.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"
traces = []

# %% [markdown]
# ## A conditional
# A Python `if` cannot be compiled: when the function is traced, `z` has no value yet.


# %%
@jax.jit
def with_if(z, x):
    return x if z > 0 else -x


try:
    with_if(1.0, jnp.ones(2))
except jax.errors.TracerBoolConversionError as error:
    print(type(error).__name__)

# %% [markdown]
# `lax.cond` puts both branches into the program, and runs one. `fk.nn.branch` does so with models.


# %%
@jax.jit
def with_cond(z, x):
    traces.append("cond")
    return jax.lax.cond(z > 0, lambda: x, lambda: -x)


print(with_cond(1.0, jnp.ones(2)), with_cond(-1.0, jnp.ones(2)), "traces:", len(traces))
assert len(traces) == 1

# %% [markdown]
# ## A loop over sequences of many lengths
# Each new length is a new shape, and so a new program …


# %%
def last(xs):
    """y_t = (y_(t-1) + x_t) / 2, the last one."""
    traces.append("scan")
    return jax.lax.scan(lambda y, x: ((y + x) / 2, None), jnp.zeros(4), xs)[0]


random = np.random.default_rng(0)
sequences = [
    random.standard_normal((length, 4), np.float32) for length in random.integers(1, 17, 50)
]
traces.clear()
compiled = jax.jit(last)
expected = [compiled(sequence) for sequence in sequences]
print(len(traces), "programs for", len({len(each) for each in sequences}), "lengths")

# %% [markdown]
# … unless sequences are padded to a few lengths, buckets, and told how much of them counts.


# %%
@jax.jit
def last_of_padded(xs, length):
    traces.append("bucket")

    def step(y, at):
        x, t = at
        return jnp.where(t < length, (y + x) / 2, y), None

    return jax.lax.scan(step, jnp.zeros(4), (xs, jnp.arange(len(xs))))[0]


def in_a_bucket(sequence):
    size = 1 << (len(sequence) - 1).bit_length()
    padded = np.zeros((size, 4), np.float32)
    padded[: len(sequence)] = sequence
    return last_of_padded(padded, len(sequence))


traces.clear()
found = [in_a_bucket(sequence) for sequence in sequences]
print(len(traces), "programs for the buckets 1, 2, 4, 8 and 16")
assert len(traces) <= 5
assert np.allclose(found, expected, atol=1e-6)

# %% [markdown]
# ## A net of random depth
# The lecture's last example uses its middle layer 0 to 3 times, at random. How often is an argument:
# one program has every depth.

# %%
middle = fk.nn.loop(fk.nn.serial(dense=fk.nn.dense(8), relu=fk.nn.relu), times=3)
x = jnp.ones((2, 8))
params, _ = middle.init(jax.random.key(0), {"x": x, "times": jnp.int32(0)})


@jax.jit
def used(times):
    traces.append("depth")
    return middle.apply(params, (), {"x": x, "times": times})[0]


traces.clear()
for times in (0, 3, 1, 2):
    h = x
    for _ in range(times):
        h = jnp.maximum(h @ params["dense"]["kernel"] + params["dense"]["bias"], 0)
    assert jnp.allclose(used(jnp.int32(times)), h, atol=1e-5)
print("traces:", len(traces))
assert len(traces) == 1

# %% [markdown]
# ## A net that is a tree, another one for each example
# A Tree-LSTM computes a sentence along its parse tree. Nodes of the same depth of different trees can
# be computed together, as TensorFlow Fold did: the trees become arrays, and one program runs them all.

# %%
config = fk.models.TreeLSTMConfig(vocabulary=10, embedding=8, width=8)
trees = [((3, 1), 4), (1, (5, (9, 2))), (6, 5)]
model = fk.models.tree_lstm(config)
params, _ = model.init(jax.random.key(0), fk.models.forest(trees))
together, _ = jax.jit(model.apply)(params, (), fk.models.forest(trees))
alone, _ = fk.models.tree_lstm_one_by_one(config).apply(params, (), trees)
assert jnp.allclose(together, alone, atol=1e-5)

# %% [markdown]
# `python experiments/lecture/static_and_dynamic.py` times all of these against each other.
