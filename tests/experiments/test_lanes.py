"""``hydra/launcher=lanes``: a multirun as one call of ``sweep.run``, and what it leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

LANES = "hydra/launcher=lanes"
SPIRALS = ["experiment=spirals", "train.log_every=5", "train.eval_every=10", "train.steps=20"]
HELD_OUT = ["data.validation=0.2", "data.test=0.2", "train.batch_size=60"]


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.smoke
def test_a_multirun_as_lanes_leaves_what_the_basic_launcher_leaves(script, tmp_path: Path):
    jobs = ["optimizer.learning_rate=0.1,0.3", "seed=0,1", *SPIRALS, *HELD_OUT]
    lanes = script("train.py", "-m", *jobs, LANES, "run_dir=lanes")
    assert lanes.code == 0, lanes.err
    basic = script("train.py", "-m", *jobs, "run_dir=basic", "quiet=true")
    assert basic.code == 0, basic.err
    assert "4 jobs: 0 done before, 4 to run; compiles: 1" in lanes.out
    for number in "0123":
        ours, theirs = tmp_path / "lanes" / number, tmp_path / "basic" / number
        configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (ours, theirs)]
        assert configs[0] == configs[1]
        files = [{path.name for path in run.iterdir()} for run in (ours, theirs)]
        assert files[0] - {"job.json"} == files[1]
        assert summary(ours)["test_loss"] == pytest.approx(summary(theirs)["test_loss"], rel=1e-4)
        for one, other in zip(rows(ours), rows(theirs), strict=True):
            assert (one["step"], one["split"]) == (other["step"], other["split"])
            np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)

    def rank(number: int) -> tuple[float, float]:
        told = summary(tmp_path / "lanes" / str(number))
        return told["validation_accuracy"], -told["validation_loss"]

    best = max(range(4), key=rank)
    assert f"best: job {best}, validation accuracy" in lanes.last_line
    assert lanes.last_line.startswith("4 jobs: 4 finished · ")

    evaluated = script("evaluate.py", "run=lanes/2")
    assert f"{summary(tmp_path / 'lanes/2')['test_accuracy']:.4f}" in evaluated.last_line
    resumed = script("train.py", "resume=lanes/2", "train.steps=30", "quiet=true")
    assert resumed.code == 0, resumed.err
    assert summary(tmp_path / "lanes/2")["steps"] == 30


def test_a_job_that_diverges_is_named_and_the_others_end_well(script, tmp_path: Path):
    rates = ["optimizer.learning_rate=1e-7,1e6,2e-7", 'optimizer.learning_rates=["**=1e6"]']
    jobs = ["-m", *rates, "train.nonfinite=raise", *SPIRALS]
    ended = script("train.py", *jobs, LANES, "run_dir=s")
    assert ended.code == 3, ended
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("error: training failed in job 1: replay.py looks")
    statuses = [summary(tmp_path / "s" / number)["status"] for number in "012"]
    assert statuses == ["finished", "diverged", "finished"]
    assert ended.last_line.startswith("3 jobs: 2 finished, 1 diverged · best: job ")
    again = script("train.py", *jobs, LANES, "run_dir=s")
    assert again.code == 3, again
    assert "3 done before, 0 to run; compiles: 0" in again.out


def test_two_devices_of_a_cpu_are_made_and_share_the_lanes(script, tmp_path: Path):
    few = ["seed=0,1,2", *SPIRALS, "quiet=true", LANES]
    two = script("train.py", "-m", *few, "hydra.launcher.devices=2", "run_dir=two")
    assert two.code == 0, two.err
    one = script("train.py", "-m", *few, "run_dir=one")
    assert one.code == 0, one.err
    counts = []
    for name in ("one", "two"):
        told = json.loads((tmp_path / name / "0" / "environment.json").read_text())
        program = json.loads((tmp_path / name / "0" / "program.json").read_text())
        counts.append((told["devices"]["count"], program["lanes"]))
    assert counts == [(1, 3), (2, 4)]  # three jobs and a dead lane
    for number in "012":
        pairs = zip(rows(tmp_path / "one" / number), rows(tmp_path / "two" / number), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


def test_halving_ends_most_jobs_at_its_step(script, tmp_path: Path):
    halving = ["hydra.launcher.halving_first=10", "hydra.launcher.halving_factor=2"]
    few = ["seed=range(4)", *SPIRALS, *HELD_OUT, LANES, "run_dir=s", "quiet=true"]
    ended = script("train.py", "-m", *few, *halving)
    assert ended.code == 0, ended.err
    ends = [summary(tmp_path / "s" / number) for number in "0123"]
    assert sorted((end["steps"], end["status"]) for end in ends) == [
        (10, "pruned"), (10, "pruned"), (20, "finished"), (20, "finished"),
    ]  # fmt: skip
    assert "2 pruned" in ended.last_line
    assert "2 finished" in ended.last_line


def test_without_a_validation_part_the_last_line_and_best_name_the_same_job(script):
    jobs = ["optimizer.learning_rate=1e-7,0.3,0.1", "seed=0,1", *SPIRALS, "quiet=true"]
    ended = script("train.py", "-m", *jobs, LANES, "run_dir=s")
    assert ended.code == 0, ended.err
    rank, number, value, *_ = script("best.py", "sweep=s", "top=1").out.splitlines()[1].split()
    assert rank == "1"
    assert f"best: job {number}, training loss {value[:5]}" in ended.last_line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["hydra.launcher.mode=fast"], "hydra.launcher.mode is 'fast': choose auto, lanes or one"),
        (["hydra.launcher.devices=0"], "hydra.launcher.devices is 0: give a whole number, 1 or"),
        (["hydra.launcher.memory=-1"], "hydra.launcher.memory is -1: give a number above 0"),
        (["hydra.launcher.compact=1"], "hydra.launcher.compact is 1: give true or false"),
        (["hydra.launcher.halving_factor=1"], "hydra.launcher.halving_factor is 1: give a whole"),
        (["hydra.launcher.device=2"], "hydra.launcher.device is not a setting"),
        (["hydra.sweep.subdir=x"], "hydra.sweep.subdir means nothing to hydra/launcher=lanes"),
        (["hydra.job.chdir=true"], "hydra.job.chdir means nothing to hydra/launcher=lanes"),
        (["+hydra.job.env_set.A=1"], "hydra.job.env_set means nothing to hydra/launcher=lane"),
        (["overwrite=true"], "overwrite=true is for one run: leave it out"),
        (["supervise=true"], "supervise=true is for one run: leave it out"),
        (["resume=a"], "resume is for one run: a sweep goes on when its folder is given again"),
        # What refers to Hydra is each job's own.
        (["train.label_smoothing=${hydra:job.num}"], "job 1: train.label_smoothing is 1: give a"),
        (["train.batch_size=64", "train.accumulate=1,3"], "job 1: train.accumulate is 3: it must"),
        (
            ["train.best=loss,accuracy", "hydra.launcher.halving_first=5"],
            "hydra.launcher.halving_first compares jobs by train.best: give all jobs the same",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line_before_anything_runs(
    here, tmp_path: Path, words: list[str], complaint: str
):
    ended = here("train.py", "-m", "seed=0,1", *words, LANES, "run_dir=s")
    assert ended.complaint.startswith(complaint)
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.parametrize("word", [LANES, "hydra.launcher.devices=2"])
def test_a_launcher_without_several_runs_is_refused(here, word: str):
    assert here("train.py", word).complaint == f"'{word}' is for several runs: add -m"


def test_only_the_training_script_takes_lanes(here):
    refused = here("evaluate.py", "-m", "run=a,b", LANES)
    assert refused.complaint == "hydra/launcher=lanes is for train.py: leave it out of evaluate.py"
