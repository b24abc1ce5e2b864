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
# # From a training loop of one's own to `fit`
#
# Real handwritten digits, 8 × 8 pixels. First everything is written out; then each part is replaced
# by the toolkit's, and the numbers stay what they were.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"
STEPS = 400 if FULL else 60

data = fk.data.digits(batch_size=64, seed=0)
print(data.train(0)["x"].shape, data.train(0)["y"][:10])

# %% [markdown]
# ## A model is two functions
# `init` makes parameters from a key and the shape of a batch; `apply` uses them. There is no object
# that holds state: parameters are a dict of arrays.

# %%
model = fk.models.mlp(fk.models.MLPConfig(hidden=(64,), outputs=10))
params, model_state = model.init(jax.random.key(0), data.train.spec["x"])
print(jax.tree.map(jnp.shape, params))

# %% [markdown]
# ## The loop, written out


# %%
optimizer = optax.adam(1e-2)


def mean_loss(params, batch):
    logits, _ = model.apply(params, model_state, batch["x"])
    return fk.losses.softmax_cross_entropy(logits, batch["y"]).mean()


@jax.jit
def step(params, opt_state, batch):
    loss, slopes = jax.value_and_grad(mean_loss)(params, batch)
    updates, opt_state = optimizer.update(slopes, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


opt_state, by_loop = optimizer.init(params), []
for number in range(STEPS):
    params, opt_state, loss = step(params, opt_state, data.train(number))
    by_loop.append(float(loss))
print(f"loss {by_loop[0]:.3f} -> {by_loop[-1]:.3f}")

# %% [markdown]
# A batch is a function of the step, `data.train(number)`: going on in the middle needs the number of
# the step and nothing else.
#
# ## The same in three parts
# An objective, a train step, a state. Hyperparameters are arguments of the step, so that another
# learning rate compiles nothing again.

# %%
objective = fk.train.classification(model)
train_step = jax.jit(fk.train.make_train_step(objective, lambda h: optax.adam(h["learning_rate"])))
hparams = fk.train.as_hparams({"learning_rate": 1e-2})
state = fk.train.init_state(
    model, lambda h: optax.adam(h["learning_rate"]), data.train.spec["x"], hparams=hparams, seed=0
)
by_parts = []
for number in range(STEPS):
    state, metrics = train_step(hparams, state, data.train(number))
    by_parts.append(float(metrics["loss"].compute()))
print(f"loss {by_parts[0]:.3f} -> {by_parts[-1]:.3f}")

# %% [markdown]
# ## `fit`
# One call that evaluates, keeps the best parameters, and with a `run_dir` leaves checkpoints, records
# and a report. From the same seed it takes the steps of the loop above.

# %%
result = fk.fit(
    model,
    objective,
    optimizer=lambda h: optax.adam(h["learning_rate"]),
    hparams={"learning_rate": 1e-2},
    data=data,
    steps=STEPS,
    seed=0,
    quiet=True,
)
by_fit = [row["loss"] for row in result.history if row["split"] == "train"]
print(f"loss {by_fit[0]:.3f} -> {by_fit[-1]:.3f}, test accuracy {result.test['accuracy']:.3f}")
assert np.allclose(by_fit, by_parts, rtol=1e-3, atol=1e-4)
assert result.test["accuracy"] > 0.8
