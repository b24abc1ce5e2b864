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
# # Reading a compile report and a comparison
#
# A training step is compiled ahead of time, for fixed shapes. What that showed stands in its report;
# how it compares with other ways of running the same step stands in a table.

# %%
import os

import jax
import jax.numpy as jnp
import optax

import functorch_kit as fk

FULL = os.environ.get("FULL") == "1"

data = fk.data.digits(batch_size=64, seed=0)
model = fk.models.mlp(fk.models.MLPConfig(hidden=(128, 128) if FULL else (32,), outputs=10))
print(fk.summary(model, data.train.spec["x"]))

# %% [markdown]
# ## The report of a program
# Operations are counted in what was traced, memory comes from the compiled program, and donated is
# what hands its memory on to the result: with the state donated, a step needs no second copy of it.

# %%
optimizer = optax.adam(1e-3)
objective = fk.train.classification(model)
step = fk.train.make_train_step(objective, optimizer)
state = fk.train.init_state(model, optimizer, data.train.spec["x"], seed=0)
program = fk.program.compile(
    step, {}, state, data.train.spec, name="train_step", donate=(1,), carry=1
)
report = program.report
print(f"{report.flops:,} operations, {report.peak_bytes:,} bytes at most")
print("donated:", *report.donated[:4], "…")
print("not donated:", *report.not_donated)
print("libraries:", fk.program.library_calls(program))

# %% [markdown]
# A program cannot retrace: another shape is an error that names the leaf.

# %%
batch = data.train(0)
try:
    program({}, state, {name: array[:32] for name, array in batch.items()})
except fk.program.ProgramMismatch as error:
    print(error)
else:
    raise AssertionError("half a batch went through")

# %% [markdown]
# ## A comparison
# Every way is warmed up, waited for, and takes turns with the others. `agrees` compares what comes
# out: not the speed alone, the numbers, too. A row whose time cannot be true is red.

# %%
comparison = fk.compare_steps(
    model,
    objective,
    optimizer,
    batch,
    variants=("jit", "scan=10", "bf16") if FULL else ("jit", "scan=4"),
    rounds=3,
    steps=4,
    seconds=3.0 if FULL else 0.3,
)
print(comparison)
assert all(row.error is None for row in comparison.variants)

# %% [markdown]
# Rows are values: a test can ask them.

# %%
jit, scan = comparison.variants[:2]
print(f"a step in a scan takes {scan.median_seconds / jit.median_seconds:.2f} × a jitted step")
assert scan.agrees
