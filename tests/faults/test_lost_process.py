"""F14, F15: a run in several processes loses one, ends, and goes on as if nothing had been."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from functorch_kit import checkpoint
from functorch_kit.supervise import newest_step

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "experiments" / "train.py"
STEPS = 120
WORDS = [
    "model=mlp", "model.hidden=[64,64]", "model.dropout=0.2", "train.batch_size=32", "mesh.data=1",
    f"train.steps={STEPS}", "train.checkpoint_every=10", "train.eval_every=40",
    "train.log_every=1", "train.form=single", "quiet=true",
]  # fmt: skip
CAUSES = {
    signal.SIGKILL: "process {} of {} ended by SIGKILL: the others are ended",
    signal.SIGSTOP: "process {} of {} is stopped and answers no more: all are ended",
}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(script_environment: dict[str, str]) -> Iterator[Start]:
    """``start(folder, processes, …)``: a supervised run in processes of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, processes: int, *words: str) -> subprocess.Popen[str]:
        several = [f"launch.processes={processes}", f"mesh.fsdp={processes}"]
        own = ["supervise=true", "backoff=0", f"run_dir={folder}", "launch.heartbeat=5"]
        process = subprocess.Popen(
            [sys.executable, str(TRAIN), *WORDS, *several, *own, *words],
            env={**script_environment, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def processes_of(folder: Path) -> dict[int, int]:
    """Index -> process id of the processes of a run."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(folder) in (entry / "cmdline").read_text():
                environment = (entry / "environ").read_text()
                _, sign, rest = environment.partition("FUNCTORCH_KIT_PROCESS=")
                if sign:
                    found[int(rest.partition("/")[0])] = int(entry.name)
        except OSError:
            continue
    return found


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def digest(folder: Path) -> str:
    """SHA-256 over the last checkpoint's leaves and the logged losses."""
    found, sums = checkpoint.read(folder / "checkpoints" / str(STEPS)), hashlib.sha256()
    for name in sorted(found):
        sums.update(name.encode() + np.asarray(found[name]).tobytes())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == list(range(1, STEPS + 1))
    return hashlib.sha256(sums.digest() + repr([row["loss"] for row in train]).encode()).hexdigest()


def lose(folder: Path, index: int, number: int, at: int) -> float:
    """Kill or stop one process once a step is saved; seconds until none of them is there."""
    until = time.monotonic() + 120
    while (newest_step(folder) or 0) < at or index not in (found := processes_of(folder)):
        assert time.monotonic() < until, "the run never came so far"
        time.sleep(0.02)
    os.kill(found[index], number)
    began = time.monotonic()
    while any(map(is_there, found.values())):
        assert time.monotonic() < began + 60
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_run_whose_first_process_is_stopped_ends_and_goes_on(start: Start, tmp_path: Path):
    process = start(tmp_path / "run", 2)
    assert lose(tmp_path / "run", 0, signal.SIGSTOP, at=20) < 20
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert CAUSES[signal.SIGSTOP].format(0, 2) in error
    digest(tmp_path / "run")  # every step once in the log


@pytest.mark.soak
@pytest.mark.parametrize("count", [2, 4])
def test_processes_lost_at_any_moment_change_nothing(
    count: int, start: Start, tmp_path: Path, table
):
    rng = random.Random(count)
    with table.row("F14", f"one of {count} local processes killed or stopped, supervised") as row:
        assert start(tmp_path / "whole", count).wait(timeout=300) == 0
        longest = 0.0
        for trial in range(25):
            folder = tmp_path / f"lost-{trial}"
            process = start(folder, count)
            number = signal.SIGKILL if trial % 2 else signal.SIGSTOP
            index, at = rng.randrange(count), rng.randrange(10, STEPS - 20)
            longest = max(longest, lose(folder, index, number, at))
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
            assert CAUSES[number].format(index, count) in error
            assert digest(folder) == digest(tmp_path / "whole")
            row.count = trial + 1
        assert longest < 20
        row.result = (
            f"all processes ended within {longest:.1f} s; each run went on to the hash of an"
            " undisturbed one"
        )
