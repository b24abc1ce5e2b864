"""The benchmark of sweeps measures the jobs that its rows name."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


def test_a_work_has_as_many_jobs_as_it_is_named_after(load: Load):
    benchmark = load("sweep")
    for work, count in benchmark.JOBS.items():
        rates, seeds = benchmark.grid(work)
        assert len(set(rates)) * len(set(seeds)) == count
        assert str(count) == work.rpartition("_")[2]


def test_both_launchers_are_given_the_same_words_but_for_the_launcher(load: Load):
    benchmark = load("sweep")
    options = argparse.Namespace(work=["spirals_64"], quick=False)
    basic, processes, by_hand, unwritten = benchmark.comparisons(options)
    assert set(basic.ours.command) - set(basic.theirs.command) == {"hydra/launcher=lanes"}
    assert set(basic.theirs.command) <= set(basic.ours.command)
    assert processes.ours == basic.ours
    assert basic.ours.timing == basic.theirs.timing == processes.theirs.timing == "process"
    assert unwritten.ours.command[1:] == unwritten.theirs.command[1:]
    assert by_hand.theirs == unwritten.theirs
    assert by_hand.ours.command == [*unwritten.ours.command, "--folder", "{folder}/sweep"]


@pytest.mark.parametrize("experiment", ["spirals", "digits_mlp", "digits_cnn"])
def test_the_jobs_are_those_of_the_experiments(
    load: Load, script_environment: dict[str, str], experiment: str
):
    import yaml

    from functorch_kit.config import to_dict

    root = load("contest").ROOT
    words = [f"experiment={experiment}", "optimizer.learning_rate=0.25", "seed=1", "--cfg", "job"]
    shown = subprocess.run(
        [sys.executable, str(root / "experiments" / "train.py"), *words],
        env=script_environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    job = to_dict(load("lanes").job(experiment, 0.25, 1, None))
    assert job.items() <= yaml.safe_load(shown.stdout).items()


@pytest.mark.parametrize("script", ["ours/lanes.py", "peers/jax_sequential.py"])
def test_both_sides_of_the_sequential_row_print_their_seconds(
    load: Load, script_environment: dict[str, str], tmp_path: Path, script: str
):
    contest = load("contest")
    words = ["spirals", "--rates", "0.1,0.2", "--seeds", "0", "--steps", "400"]
    finished = subprocess.run(
        [sys.executable, str(contest.HERE / script), *words],
        env=script_environment | {"PYTHONPATH": str(contest.ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["samples"][0] > 0
    # From log 2 downwards.
    assert 0.2 < found["mean_loss"] < 0.65
