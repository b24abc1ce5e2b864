"""A published net is fine-tuned from the command line, without any code."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import checkpoint, interop, models
from functorch_kit.types import path_name

NET = ["model=vit_ti16", "model.layers=2", "model.heads=1", "model.width=4", "model.patch=4"]
SHORT = ["train.steps=3", "train.batch_size=8", "train.eval_every=3", "run_dir=a"]
RATES = 'optimizer.learning_rates=["blocks=0.1","head=2.0"]'


def test_fine_tuning_needs_a_command_and_its_run_no_file(script, tmp_path: Path):
    config = models.ViTConfig(layers=2, heads=1, width=4, patch=4, outputs=5)
    spec = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    params, state = models.vit(config).init(jax.random.key(0), spec)
    file = tmp_path / "model.safetensors"
    interop.hugging_face(config).save(file, params, state)

    frozen = ["train.frozen=[patches,blocks/0]", RATES, "init_from=model.safetensors"]
    ended = script("train.py", *NET, *SHORT, *frozen)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[:2] == [
        "init_from: 38 arrays from 'model.safetensors'",
        "init_from: head is new: 5 outputs there, 10 here",
    ]
    held = checkpoint.read(tmp_path / "a" / "checkpoints" / "3")
    for name, moves in (("patches", False), ("blocks/0", False), ("blocks/1", True)):
        part = params
        for step in name.split("/"):
            part = part[step]
        moved = [
            not np.array_equal(held[f"params/{name}/{path_name(path)}"], leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(part)
        ]
        assert any(moved) == moves, name

    file.unlink()
    again = script("evaluate.py", "run=a")
    assert again.code == 0, again.err
    assert again.out.split("·")[0] == ended.out.splitlines()[-1].split("·")[0]
