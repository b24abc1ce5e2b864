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
# # Data without waiting
#
# Reading can be the bottleneck. Here a batch is a pure function of the step; whether it lives on the
# device, is read ahead of time by a thread, or on the spot is settled by measuring, and a run says
# itself what share of its time it waited for input.

# %%
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import optax

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"
RECORDS, STEPS = (100_000, 1000) if FULL else (2000, 40)

# %% [markdown]
# ## The order of a trillion records
# A shuffled order is a keyed permutation: any step's batch is found without shuffling a list.

# %%
order = fk.data.Shuffled(count=10**12, batch_size=256, seed=0)
began = time.perf_counter()
rows = order.rows(start=3_000_000_000, steps=1)["index"]
print(rows[0, :4], f"{1e6 * (time.perf_counter() - began):.0f} µs")

# %% [markdown]
# ## A file that stays where it is
# Arrays are mapped into memory: a batch is gathered from the file, and checked.

# %%
random = np.random.default_rng(0)
folder = Path(tempfile.mkdtemp())
np.save(folder / "x.npy", random.standard_normal((RECORDS, 64), np.float32))
np.save(folder / "y.npy", random.integers(0, 10, RECORDS).astype(np.int32))
data = fk.data.npy(folder, batch_size=64, seed=0, validation=0.0, test=0.0)
again = fk.data.npy(folder, batch_size=64, seed=0, validation=0.0, test=0.0)
assert (data.train(17)["x"] == again.train(17)["x"]).all()  # nothing but seed and step counts

# %% [markdown]
# ## What a run says of its input

# %%
model = fk.models.mlp(fk.models.MLPConfig(hidden=(64,), outputs=10))
result = fk.fit(
    model,
    fk.train.classification(model),
    optimizer=optax.sgd(0.1),
    data=data,
    steps=STEPS,
    quiet=True,
)
told = result.programs["input"]
print({name: told[name] for name in ("mode", "reason", "wait_share", "records_per_second")})

# %% [markdown]
# ## One's own source
# Anything with a length, a `spec` of one record and `batch(index)` is a source.


# %%
class Squares:
    """Numbers and their squares, made when they are asked for."""

    spec = fk.data.ArraySource(
        {"x": np.zeros((1, 1), np.float32), "y": np.zeros((1, 1), np.float32)}
    ).spec

    def __len__(self):
        return 1000

    def batch(self, index):
        x = (index[:, None] / len(self)).astype(np.float32)
        return {"x": x, "y": x**2}


pipeline = fk.data.Streamed(Squares(), fk.data.Shuffled(1000, 50, seed=0))
batch = pipeline(0)
assert np.allclose(batch["y"], batch["x"] ** 2)
print(batch["x"].shape)

# %% [markdown]
# `python experiments/lecture/data_bottleneck.py` puts resident, mapped, serial and prefetched data
# into one table.
