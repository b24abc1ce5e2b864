"""Small jobs in float64 on any mesh: for tests in this process, and as a script in one of its own.

``python proofs.py <devices> <steps> <job> <mesh> …`` prints a JSON line for each mesh, such as
``fsdp=2,tensor=2``; ``plain`` is one device without a mesh.
"""

import json
import sys
from typing import Any

import numpy as np

CONTEXT = 16


def job(name: str) -> dict[str, Any]:
    """Arguments of ``fit``, with dropout and two micro-batches to a step."""
    import optax

    from functorch_kit import data, distributed, models, train

    rng = np.random.default_rng(0)
    common: dict[str, Any] = {
        "optimizer": lambda h: optax.adamw(h["learning_rate"]),
        "hparams": {"learning_rate": 3e-3},
        "options": train.Options(precision="float64", accumulate=2),
        "quiet": True,
    }
    if name in ("mlp", "read", "wide"):
        x = rng.normal(size=(96, 64))
        arrays = {"x": x, "y": (x[:, :8].argmax(-1)).astype(np.int32)}
        hidden = (512, 512) if name == "wide" else (64, 64)
        model = models.mlp(models.MLPConfig(hidden=hidden, outputs=8, dropout=0.2))
        # Resident, or read for each step as from files.
        rows = data.Pipeline(arrays, data.Shuffled(96, 16, seed=1), resident=name != "read")
        return common | {
            "model": model, "objective": train.classification(model),
            "data": data.Data(rows), "rules": distributed.MLP,
        }  # fmt: skip
    config = models.GPTConfig(
        layers=1, heads=4, width=32, context=CONTEXT, vocabulary=32, dropout=0.1
    )
    model = models.gpt(config)
    tokens = (np.cumsum(rng.integers(0, 3, size=400)) % 32).astype(np.int32)
    order = data.Shuffled(len(tokens) - CONTEXT, 16, seed=1)
    return common | {
        "model": model, "objective": train.language_model(model),
        "data": data.Data(data.Windows(tokens, CONTEXT, order)), "rules": distributed.GPT,
    }  # fmt: skip


def trained(name: str, mesh: str, steps: int) -> dict[str, Any]:
    """Losses of a job on a mesh, its programs, and the share of its state on one device."""
    import jax

    from functorch_kit import distributed
    from functorch_kit.loop import fit

    sizes: dict[str, str] = {}
    if mesh != "plain":
        sizes = dict(each.split("=") for each in mesh.split(","))
    parts: dict[str, Any] = {"data": 1} | {n: int(size) for n, size in sizes.items()}
    grid = distributed.make_mesh(**parts)
    arguments: dict[str, Any] = job(name) | {
        "steps": steps,
        "mesh": None if mesh == "plain" else grid,
    }
    result = fit(**arguments)
    state = result.state
    return {
        "mesh": mesh,
        "losses": [row["loss"] for row in result.history if row["split"] == "train"],
        "share": share((state.params, state.opt_state)),
        "programs": result.programs,
        "devices": len(jax.tree.leaves(state.params)[0].sharding.device_set),
    }


def share(tree: Any) -> float:
    """The largest part of a tree's bytes that one device holds, as it is measured."""
    import jax

    here: dict[Any, int] = {}
    whole = 0
    for leaf in jax.tree.leaves(tree):
        whole += leaf.nbytes
        for shard in leaf.addressable_shards:
            here[shard.device] = here.get(shard.device, 0) + shard.data.nbytes
    return max(here.values()) / whole


if __name__ == "__main__":
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    jax.config.update("jax_enable_x64", True)
    for wanted in sys.argv[4:]:
        found = trained(sys.argv[3], wanted, int(sys.argv[2]))
        found.pop("programs")
        print(json.dumps(found), flush=True)
