"""Training, resuming, evaluating and comparing from the command line."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CONFIGURATIONS = [
    path
    for path in sorted((EXPERIMENTS / "conf" / "experiment").glob("*.yaml"))
    if not path.stem.startswith("shakespeare")  # test_recipes.py takes them further
]
TINY = ["model=mlp", "model.hidden=[16]", "train.steps=40", "train.log_every=20"]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.smoke
def test_a_run_is_trained_evaluated_and_resumed_with_the_same_numbers(script, tmp_path: Path):
    trained = script("train.py", *TINY, "run_dir=a")
    assert trained.code == 0, trained.err
    found = re.fullmatch(
        r"test accuracy (0\.\d{4}) \(best step (\d+) of 40\) · report: a/report\.html",
        trained.last_line,
    )
    assert found, trained.last_line
    told = summary(tmp_path / "a")
    assert float(found[1]) == round(told["test_accuracy"], 4)
    assert int(found[2]) == told["best_step"]
    assert (tmp_path / "a" / "report.html").stat().st_size > 10_000
    assert 'class="mistakes"' in (tmp_path / "a" / "report.html").read_text()

    evaluated = script("evaluate.py", "run=a")
    assert evaluated.code == 0, evaluated.err
    assert evaluated.last_line == trained.last_line

    again = script("train.py", "resume=a")
    assert again.code == 0, again.err
    assert "nothing is left to train" in again.out
    assert again.last_line == trained.last_line


def test_a_longer_run_goes_on_where_it_stopped_and_equals_one_that_never_did(
    script, tmp_path: Path
):
    assert script("train.py", *TINY, "run_dir=a", "train.steps=20", "seed=3").code == 0
    assert script("train.py", "resume=a", "train.steps=40", "quiet=true").code == 0
    assert script("train.py", *TINY, "run_dir=b", "seed=3", "quiet=true").code == 0
    first, second = summary(tmp_path / "a"), summary(tmp_path / "b")
    assert first["test_loss"] == second["test_loss"]
    assert first["best_step"] == second["best_step"]
    refused = script("train.py", *TINY, "run_dir=a")
    assert "holds a run" in refused.complaint


def test_a_recipe_by_configuration_is_trained_resumed_and_evaluated(script, tmp_path: Path):
    recipe = [
        "optimizer=adamw", "optimizer.weight_decay=0.1", "optimizer.no_decay=[**/bias]",
        'optimizer.learning_rates=["head=0.5"]', "schedule=cosine", "schedule.warmup_steps=5",
        "train.clip_norm=1", "train.accumulate=2", "train.ema_decay=0.8", "train.best=accuracy",
        "train.max_seconds=600", "quiet=true",
    ]  # fmt: skip
    assert script("train.py", *TINY, *recipe, "run_dir=a").code == 0
    # Its schedule is over: what is left to learn is nothing, unless it is stretched.
    rows = (tmp_path / "a" / "config.yaml").read_text()
    assert "schedule_steps: 40" in rows
    longer = ["resume=a", "train.steps=60", "train.schedule_steps=60", "quiet=true"]
    trained = script("train.py", *longer)
    assert trained.code == 0, trained.err
    assert "schedule_steps: 60" in (tmp_path / "a" / "config.yaml").read_text()
    evaluated = script("evaluate.py", "run=a")
    assert evaluated.last_line == trained.last_line, evaluated.err
    assert summary(tmp_path / "a")["test_accuracy"] > 0.15


def test_a_schedule_free_run_is_told_by_its_average(script, tmp_path: Path):
    free = ["optimizer=schedule_free_adamw", "optimizer.learning_rate=0.01", "quiet=true"]
    trained = script("train.py", *TINY, *free, "run_dir=a")
    assert trained.code == 0, trained.err
    assert script("evaluate.py", "run=a").last_line == trained.last_line
    asked = script("train.py", *TINY, *free, "run_dir=b", "train.evaluate=params")
    losses = [summary(tmp_path / name)["test_loss"] for name in "ab"]
    assert asked.code == 0
    assert losses[0] != losses[1]


def test_a_quiet_run_prints_its_last_line_alone_into_a_folder_of_its_own(script, tmp_path: Path):
    ended = script("train.py", *TINY, "train.steps=2", "quiet=true")
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"digits-mlp-\d{8}-\d{6}", folder.name)
    assert ended.last_line.endswith(f"report: runs/{folder.name}/report.html")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (5, "step 5 reached, nothing measured on the way"),
        (13, r"training loss \S+ \(step 10 of 13\)"),
    ],
)
def test_the_last_line_of_a_run_without_held_out_data_claims_no_more_than_was_measured(
    script, steps: int, said: str
):
    small = ["experiment=two_layer", "quiet=true", f"train.steps={steps}", "train.log_every=10"]
    ended = script("train.py", *small, "run_dir=a")
    assert re.fullmatch(rf"{said} · report: a/report\.html", ended.last_line), ended
    assert "nan" not in ended.last_line


def test_a_multirun_gives_every_job_its_own_folder(script, tmp_path: Path):
    ended = script("train.py", "-m", *TINY, "train.steps=2", "quiet=true", "seed=0,1", "run_dir=s")
    assert ended.code == 0, ended.err
    assert ended.out.count("test accuracy") == 2
    losses = [summary(tmp_path / "s" / number)["test_loss"] for number in "01"]
    assert losses[0] != losses[1]


def test_a_language_model_is_told_by_its_validation_loss(script, tmp_path: Path):
    (tmp_path / "a.txt").write_text("to be or not to be, " * 50, encoding="utf-8")
    small = ["model=gpt_nano", "model.layers=1", "model.width=16", "data=text", "data.path=a.txt"]
    short = ["data.context=16", "train.steps=60", "train.batch_size=8", "quiet=true", "run_dir=a"]
    ended = script("train.py", *small, *short, "optimizer.learning_rate=0.01")
    assert ended.code == 0, ended.err
    assert re.search(r"^validation loss \d\.\d+ \(best step 60 of 60\)", ended.out, re.M)
    # From log(9) nats a character, 2.2, towards none.
    assert 0 < summary(tmp_path / "a")["validation_loss"] < 1.5
    assert "test_loss" not in summary(tmp_path / "a")
    again = script("evaluate.py", "run=a", "split=validation")
    assert again.out.split("·")[0] == ended.out.split("·")[0], again.err


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_every_experiment_runs_a_step(script, tmp_path: Path, path: Path):
    ended = script(
        "train.py", f"experiment={path.stem}", "train.steps=1", "quiet=true", "run_dir=a"
    )
    assert ended.code == 0, ended.err
    assert summary(tmp_path / "a")["steps"] == 1


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_every_experiment_states_command_hardware_time_and_expected_result(path: Path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("command", "hardware", "time", "expected"):
        (line,) = [line for line in header if line.startswith(f"# {word} ")]
        assert "pending" not in line


def test_the_main_job_is_the_default_of_the_schema(here):
    import yaml

    from functorch_kit.config import Config, to_dict
    from functorch_kit.config.devices import Launch

    launch = {"launch": dataclasses.asdict(Launch())}
    for experiment in ([], ["experiment=digits_cnn"]):
        shown = here("train.py", *experiment, "--cfg", "job")
        supervision = {"supervise": False, "max_restarts": 5, "backoff": 1.0}  # of the script
        assert yaml.safe_load(shown.out) == to_dict(Config()) | supervision | launch


def test_a_run_that_is_told_to_stop_saves_says_so_and_goes_on_later(
    script, script_environment: dict[str, str], tmp_path: Path
):
    arguments = [*TINY, "train.steps=1000000", "train.eval_every=200", "run_dir=a"]
    process = subprocess.Popen(
        [sys.executable, str(EXPERIMENTS / "train.py"), *arguments],
        env={**script_environment, "PYTHONPATH": str(EXPERIMENTS.parent)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in complaint
    told = summary(tmp_path / "a")
    assert told["status"] == "interrupted"
    assert complaint.splitlines()[-1] == f"stopped by SIGINT at step {told['steps']}"
    steps = told["steps"] + 10
    assert script("train.py", "resume=a", f"train.steps={steps}", "quiet=true").code == 0
    assert summary(tmp_path / "a")["steps"] == steps


def test_a_profile_is_printed_and_written(script, tmp_path: Path):
    ended = script("profile_step.py", "experiment=two_layer", "steps=2")
    assert ended.code == 0, ended.err
    assert "matrix product" in ended.out
    assert "ui.perfetto.dev" in ended.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("profile-gaussian-mlp-")
    written = json.loads((folder / "profile.json").read_text())
    assert written["steps"] == 2
    assert (tmp_path / written["trace_file"]).is_file()
    for view in ("train_step.jaxpr.txt", "train_step.hlo.txt", "layers.svg"):
        assert (folder / view).stat().st_size > 100
