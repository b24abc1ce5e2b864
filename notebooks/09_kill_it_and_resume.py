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
# # Kill it and resume, certified
#
# A run that was killed anywhere and resumed equals one that was left in peace, to the bit. That is a
# claim about your own job as well, and one call certifies it: it kills real processes.

# %%
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"

# %% [markdown]
# ## First by hand
# Twelve steps at once, and six and six.


# %%
def settings():
    model = fk.models.mlp(fk.models.MLPConfig(hidden=(16,), outputs=10, dropout=0.1))
    return {
        "model": model,
        "objective": fk.train.classification(model),
        "optimizer": optax.adam(1e-2),
        "data": fk.data.digits(batch_size=32, seed=0),
        "seed": 0,
        "quiet": True,
    }


folder = Path(tempfile.mkdtemp())
straight = fk.fit(**settings(), steps=12, run_dir=folder / "straight")
fk.fit(**settings(), steps=6, run_dir=folder / "resumed")
resumed = fk.fit(**settings(), steps=12, run_dir=folder / "resumed", resume=True)
pairs = zip(jax.tree.leaves(straight.params), jax.tree.leaves(resumed.params), strict=True)
assert all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in pairs)
print("equal to the bit, dropout, Adam's moments and the order of the data included")

# %% [markdown]
# ## Certified
# A job in a file of its own is started as a process, killed with SIGKILL, and resumed; every leaf of
# the state and every row of the log are compared with those of a run that nobody disturbed.

# %%
job = folder / "job.py"
job.write_text(
    """
import optax
import functorch_kit as fk

def job():
    model = fk.models.mlp(fk.models.MLPConfig(hidden=(16,), outputs=10, dropout=0.1))
    return {
        "model": model,
        "objective": fk.train.classification(model),
        "optimizer": optax.adam(1e-2),
        "data": fk.data.digits(batch_size=32, seed=0),
    }
""",
    encoding="utf-8",
)
options = {} if FULL else {"steps": 4, "moments": ("published",)}
certificate = fk.certify.verify_resume(f"{job}:job", **options, say=print)
print(certificate)
assert certificate.certified

# %% [markdown]
# From the command line, for any configuration: `python experiments/verify_resume.py model=mlp`.
