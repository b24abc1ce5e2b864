"""A multirun as lanes that is killed or told to stop goes on when it is started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SIX = [
    *("train.py", "-m", "experiment=spirals", "optimizer.learning_rate=0.1,0.2", "seed=0,1,2"),
    *("data.validation=0.2", "train.batch_size=80", "train.log_every=100", "train.eval_every=400"),
    *("train.steps=8000", "quiet=true", "hydra/launcher=lanes"),
]


def started(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(EXPERIMENTS / arguments[0]), *arguments[1:]],
        env={**environment, "PYTHONPATH": str(EXPERIMENTS.parent)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def table(folder: Path) -> list:
    """What of ``sweep.json`` does not tell of time."""
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    for job in jobs:
        del job["summary"]["seconds"]
    return jobs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = dict(os.environ)
    environment.pop("FUNCTORCH_KIT_CACHE", None)
    folder = tmp_path_factory.mktemp("undisturbed")
    process = started(environment, folder, *SIX, "run_dir=s")
    _, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint
    return folder / "s"


def test_a_sweep_killed_at_any_moment_comes_to_the_same_table(
    script, script_environment: dict[str, str], undisturbed: Path, tmp_path: Path
):
    process = started(script_environment, tmp_path, *SIX, "run_dir=s")
    wait_for(lambda: list(tmp_path.glob("s/*/checkpoints/*")), process)
    time.sleep(random.uniform(0, 1.5))
    process.kill()
    process.communicate(timeout=60)
    ended = script(*SIX, "run_dir=s")
    assert ended.code == 0, ended.err
    assert table(tmp_path / "s") == table(undisturbed)
    for number in "012345":
        logs = [folder / number / "metrics.jsonl" for folder in (tmp_path / "s", undisturbed)]
        assert logs[0].read_bytes() == logs[1].read_bytes()


def test_a_finished_sweep_that_is_started_again_executes_nothing(script, undisturbed: Path):
    def written() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in undisturbed.glob("*/**/*")}

    before = written()
    loud = [word for word in SIX if word != "quiet=true"]
    again = script(*loud, f"run_dir={undisturbed}")
    assert again.code == 0, again.err
    assert "6 jobs: 6 done before, 0 to run; compiles: 0" in again.out
    assert written() == before


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_a_sweep_that_is_told_to_stop_saves_and_goes_on_later(
    script, script_environment: dict[str, str], undisturbed: Path, tmp_path: Path, number: int
):
    process = started(script_environment, tmp_path, *SIX, "run_dir=s")
    wait_for(lambda: list(tmp_path.glob("s/*/checkpoints/*")), process)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number, complaint
    assert complaint.count("\n") == 1, complaint
    assert complaint.startswith(f"stopped by {signal.Signals(number).name}")
    told = [json.loads(path.read_text()) for path in tmp_path.glob("s/*/summary.json")]
    assert [each["status"] for each in told] == ["interrupted"] * 6
    ended = script(*SIX, "run_dir=s")
    assert ended.code == 0, ended.err
    assert table(tmp_path / "s") == table(undisturbed)
