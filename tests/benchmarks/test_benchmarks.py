"""Each benchmark compares what it promises, with scripts that are there and start."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]

WORKS_AND_PEERS = {
    "main_job": {"digits_cnn_whole_process": ["keras", "keras_no_cache"]},
    "forms": {
        "digits_mlp": ["jax_jit_loop", "chunk_form", "single_form"],
        "digits_cnn": ["jax_jit_loop", "chunk_form", "single_form"],
        "digits_cnn_library_conv": ["jax_jit_loop", "chunk_form", "single_form"],
    },
    "loop": {
        "digits_mlp": [
            *("jax_jit_loop", "keras", "keras_steps_per_execution", "flax_nnx"),
            *("flax_nnx_cached_partial", "equinox", "lightning", "torch_eager"),
        ],
        "digits_cnn": ["jax_jit_loop"],
    },
    "guards": {
        f"{work}_{policy}{pause}": ["unguarded"]
        for work in ("digits_mlp", "digits_cnn")
        for policy in ("skip", "raise")
        for pause in ("", "_every_epoch")
    },
    "data": {
        "memory_mapped_batches": [
            "numpy_gather",
            "torch_dataloader",
            "torch_dataloader_2_workers",
        ],
        "checked_steps": ["unchecked"],
        "overlap": ["ideal"],
    },
    "checkpoints": {f"gpt_nano_every_{every}": ["not_saving"] for every in (10, 100)},
    "compare_truth": {"digits_mlp": ["bare_loop"], "digits_cnn": ["bare_loop"]},
    "models": {
        "gpt_nano_step": ["torch_eager", "torch_compile"],
        "resnet18_step": ["torch_eager", "torch_compile", "torch_channels_last"],
        "functorch_cnn_step": ["torch_eager", "torch_compile", "torch_channels_last"],
        "lstm_step": ["torch_eager", "torch_compile"],
        "gpt_nano_generate": ["torch_eager"],
        "gpt_repeat_compile": ["4_layers"],
    },
    "transforms": {
        "per_sample_gradients": ["torch_func"],
        "clipped_sum": ["plain_gradient"],
        "dp_step": ["opacus"],
        "jacobian_32_2048": ["best_mode"],
        "jacobian_2048_32": ["best_mode"],
        "hessian_vector": ["gradient", "curvlinops"],
        "gauss_newton_vector": ["gradient", "curvlinops"],
        "ntk": ["neural_tangents"],
    },
    "program_overhead": {"program_call": ["jax_compiled_call"]},
    "sweep": {
        "spirals_64": ["hydra_basic_launcher", "process_per_job", "sequential_one_program"],
        **{
            f"digits_{name}": ["hydra_basic_launcher", "sequential_one_program"]
            for name in ("mlp_1", "mlp_4", "mlp_16", "mlp_64", "cnn_1", "cnn_4")
        },
        "spirals_64_unwritten": ["sequential_one_program"],
        **{
            f"digits_{name}_unwritten": ["sequential_one_program"]
            for name in ("mlp_1", "mlp_4", "mlp_16", "mlp_64", "cnn_1", "cnn_4")
        },
    },
}


def _comparisons(benchmark: ModuleType, *arguments: str) -> list:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    getattr(benchmark, "add_options", lambda parser: None)(parser)
    return benchmark.comparisons(parser.parse_args(arguments))


@pytest.mark.parametrize("name", WORKS_AND_PEERS)
@pytest.mark.parametrize("arguments", [[], ["--quick"]], ids=["whole", "quick"])
def test_no_peer_is_missing_and_every_script_is_there(load: Load, name: str, arguments: list[str]):
    found: dict[str, list[str]] = {}
    for comparison in _comparisons(load(name), *arguments):
        found.setdefault(comparison.work, []).append(comparison.peer)
        for contender in (comparison.ours, comparison.theirs):
            script = Path(contender.command[0])
            compile(script.read_text(encoding="utf-8"), str(script), "exec")
    assert found == WORKS_AND_PEERS[name]


def test_keras_has_the_compilation_cache_in_one_row_and_not_in_the_other(load: Load):
    cached, plain = (each.theirs for each in _comparisons(load("main_job")))
    assert cached.command == plain.command
    switch = "JAX_COMPILATION_CACHE_DIR"
    assert cached.environment[switch]
    # JAX's own defaults skip programs that compile in less than a second.
    assert cached.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert cached.environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
    assert plain.environment[switch] is None


def test_the_peer_can_be_measured_without_the_cache_alone(load: Load):
    (only,) = _comparisons(load("main_job"), "--peer-without-cache")
    assert only.peer == "keras_no_cache"


def test_the_main_job_is_the_default_job_with_everything_on(load: Load):
    for comparison in _comparisons(load("main_job")):
        script, *settings = comparison.ours.command
        assert Path(script).parts[-2:] == ("experiments", "train.py")
        assert settings == ["run_dir={folder}/run"]


@pytest.mark.parametrize("way", ["chunk", "single", "jit_loop"])
def test_every_way_of_dispatching_trains(load: Load, standard_promotion: None, way: str):
    steps = load("steps")
    stretch, form = steps.prepare("digits_mlp", way, "off")
    assert form == way
    samples = steps.measure(stretch, 3, 2)
    assert len(samples) == 2
    assert min(samples) > 0


def test_the_hand_written_loop_and_the_forms_take_the_same_number_of_steps(
    load: Load, monkeypatch: pytest.MonkeyPatch, standard_promotion: None
):
    steps, taken = load("steps"), []
    monkeypatch.setattr(steps.jax, "block_until_ready", lambda params: taken.append(params))
    calls: list[int] = []

    def step(hparams: dict, state: object, batch: dict) -> tuple[object, dict]:
        calls.append(len(batch["y"]))
        return state, {"loss": steps.fk.metrics.Mean(1.0, 1.0)}

    monkeypatch.setattr(steps.jax, "jit", lambda fn, donate_argnums: fn)
    arrays = steps.fk.data.digits().train.arrays
    state = argparse.Namespace(params=())
    steps.by_hand(step, arrays, {}, state)(0, 45)
    assert calls == [64] * 45


def test_both_convolutions_make_the_net_of_the_main_job(load: Load):
    import jax
    import jax.numpy as jnp

    steps = load("steps")
    spec = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    fk = steps.fk
    expected = jax.eval_shape(fk.models.cnn(fk.models.CNNConfig()).init, jax.random.key(0), spec)
    for work in ("digits_cnn", "digits_cnn_library_conv"):
        assert jax.eval_shape(steps.model_of(work).init, jax.random.key(0), spec) == expected


def test_both_ways_of_calling_a_program_do_the_same(load: Load):
    call = load("call")
    ours, theirs = (call.prepare(way) for way in ("program", "compiled"))
    assert ours() == theirs()
    assert ours()["leaf_7"] == 1
    assert min(call.measure(ours, 3, 2)) > 0


def test_fit_with_everything_on_is_measured(
    load: Load, tmp_path: Path, script_environment: dict[str, str]
):
    contest = load("contest")
    command = [sys.executable, str(contest.HERE / "ours" / "fit.py"), "digits_mlp"]
    finished = subprocess.run(
        [*command, str(tmp_path / "run"), "--epochs", "1", "--samples", "2"],
        env=script_environment | {"PYTHONPATH": str(contest.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert len(found["samples"]) == 2
    assert (found["unit"], found["form"]) == ("µs/step", "chunk")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"metrics.jsonl", "tensorboard", "checkpoints", "report.html"} <= written
