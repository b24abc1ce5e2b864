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
# # A sweep as one program
#
# Hyperparameters are arguments of the compiled step. So runs that differ in numbers only, learning
# rates and seeds, share one program, and may run side by side as lanes of it.

# %%
import os

import numpy as np
import optax

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"
RATES = (1e-3, 3e-3, 1e-2, 3e-2) if FULL else (1e-3, 1e-2)
SEEDS = (0, 1, 2, 3) if FULL else (0, 1)
STEPS = 400 if FULL else 40

data = fk.data.digits(batch_size=64, seed=0)
model = fk.models.mlp(fk.models.MLPConfig(hidden=(32,), outputs=10))
job = {
    "model": model,
    "objective": fk.train.classification(model),
    "optimizer": lambda h: optax.adam(h["learning_rate"]),
    "data": data,
    "steps": STEPS,
}

# %% [markdown]
# ## All jobs at once

# %%
jobs = [job | {"hparams": {"learning_rate": rate}, "seed": seed} for rate in RATES for seed in SEEDS]
result = fk.sweep.run(jobs, mode="lanes", say=print)
print(f"{len(result.jobs)} jobs, {result.compiles} program, {result.seconds:.1f} s")
assert result.compiles == 1
assert all(each.status == "finished" for each in result.jobs)

# %% [markdown]
# ## A lane is an ordinary run
# The same job alone comes to the same losses, to rounding.

# %%
alone = fk.fit(**jobs[0], quiet=True)
lane = [row["loss"] for row in result.jobs[0].rows() if row["split"] == "validation"]
solo = [row["loss"] for row in alone.history if row["split"] == "validation"]
print("lane", lane[-1], "alone", solo[-1])
assert np.allclose(lane, solo, rtol=1e-3)

# %% [markdown]
# From the command line the same is `python experiments/train.py -m … hydra/launcher=lanes`, which
# also leaves `sweep.html` and `sweep.csv`.
