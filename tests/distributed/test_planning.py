"""What is predicted of a step on a mesh: against the compiled program of the run itself."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

from functorch_kit import planning, train
from functorch_kit.distributed import Layout, make_mesh
from functorch_kit.errors import UserError
from functorch_kit.loop import fit

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")


def predicted(job: dict[str, Any], layout: Layout, **changes: Any) -> planning.Prediction:
    return planning.predict(
        job["model"], job["objective"], job["optimizer"], job["data"].train.spec, layout,
        hparams=job["hparams"], **changes,
    )  # fmt: skip


def test_what_is_predicted_is_what_the_runs_own_program_takes(proofs: ModuleType, tmp_path: Path):
    job = proofs.job("gpt") | {"options": train.Options(), "form": "single"}
    mesh = make_mesh(data=1, fsdp=2, tensor=2)
    found = predicted(job, Layout(mesh, job["rules"]))
    fit(**job, steps=1, mesh=mesh, run_dir=tmp_path / "run")
    real = json.loads((tmp_path / "run" / "program.json").read_text())
    state, step = real["layout"]["state"], real["programs"]["train_step"]
    assert found.params_bytes == state["params"]["bytes_per_device"]
    assert found.opt_bytes == state["opt_state"]["bytes_per_device"]
    assert found.flops == pytest.approx(step["flops"], rel=0.01)
    assert found.activation_bytes == pytest.approx(step["temp_bytes"], rel=0.1)
    exchanged = {(each.kind, each.group): each.size for each in found.exchanged}
    for row in real["collectives"]["train_step"]:
        assert exchanged[row["kind"], row["group"]] == pytest.approx(row["size"], rel=0.1)


def test_times_follow_from_the_rates(proofs: ModuleType):
    job = proofs.job("mlp")
    rates = planning.Rates(flops=1e6, link=1e3)
    found = predicted(job, Layout(make_mesh(data=4)), rates=rates)
    assert found.compute_seconds == pytest.approx(found.flops / 4e6)
    # Gradients and a few sums are added up over 4: each device sends 2 × 3/4 of them.
    parameters = 2 * (64 * 64 + 64) + 64 * 8 + 8
    assert found.link_seconds == pytest.approx(1.5 * 4 * parameters / 1e3, rel=0.01)
    assert found.seconds == (
        max(found.compute_seconds, found.link_seconds),
        found.compute_seconds + found.link_seconds,
    )


def search(job: dict[str, Any], layout: Layout, memory: float, *policies: str) -> Any:
    parts = job["model"], job["objective"], job["optimizer"], job["data"].train.spec
    found = planning.fitting(*parts, layout, memory, hparams=job["hparams"], policies=policies)
    return {each.policy: each for each in found}


def test_the_largest_micro_batch_fits_and_a_little_more_does_not(proofs: ModuleType):
    job, layout, memory = proofs.job("mlp"), Layout(make_mesh(data=2)), 2e5
    best = search(job, layout, memory, "")[""]
    assert best.peak_bytes <= memory
    assert best.batch_size == 2 * best.micro_batch > 2
    size = 2 * (best.micro_batch * 9 // 8 + 1)
    larger = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype),
        job["data"].train.spec,
    )
    parts = job["model"], job["objective"], job["optimizer"], larger, layout
    assert planning.predict(*parts, hparams=job["hparams"]).peak_bytes > memory


@pytest.mark.soak
def test_more_examples_fit_where_blocks_keep_nothing(proofs: ModuleType):
    found = search(proofs.job("gpt"), Layout(make_mesh(data=2)), 2e6, "", "dots", "nothing")
    sizes = [found[policy].micro_batch for policy in ("", "dots", "nothing")]
    assert sizes == sorted(sizes)
    assert sizes[2] > sizes[0]


def test_nothing_is_said_to_fit_where_not_one_example_does(proofs: ModuleType):
    job = proofs.job("mlp")
    assert search(job, Layout(make_mesh(data=1)), 1e3, "") == {}


def test_a_batch_with_a_leaf_of_another_size_is_refused(proofs: ModuleType):
    job = proofs.job("mlp")
    spec = {**job["data"].train.spec, "scale": jax.ShapeDtypeStruct((), "float32")}
    parts = job["model"], job["objective"], job["optimizer"]
    with pytest.raises(UserError, match="a leaf without an axis of examples"):
        planning.fitting(
            *parts, spec, Layout(make_mesh(data=1)), 1e9, hparams=job["hparams"], policies=[""]
        )


def test_the_script_plans_for_devices_that_are_not_there(
    script_environment: dict[str, str], tmp_path: Path
):
    words = "model=mlp model.hidden=[64,64] mesh.data=-1 mesh.fsdp=2 devices=8".split()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "plan.py"), *words, "memory=0.0001"],
        env={**script_environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = ended.stdout.splitlines()
    assert lines[0] == "data 4 × fsdp 2: 8,970 parameters, 64 examples a step"
    assert any(line.strip().startswith("optimizer state") for line in lines)
    assert any(line.strip().startswith("all-gather") for line in lines)
    assert not any(tmp_path.iterdir())  # nothing was trained, and nothing is left behind
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: not one example fits into 0.0001 GB: give a larger mesh")
