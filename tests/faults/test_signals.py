"""F6: SIGINT and SIGTERM at any moment, once or twice: a documented end, and nothing lost."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from functorch_kit import checkpoint
from functorch_kit.supervise import supervise

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "experiments" / "train.py"
RUN = ["model=mlp", "model.hidden=[16]", "model.dropout=0.2", "quiet=true", "run_dir=run"]
SHORT = ["train.steps=60", "train.eval_every=10", "train.log_every=1"]
LONG = ["train.steps=2000", "train.eval_every=50", "train.log_every=1"]
LIMIT = 30.0


def start(folder: Path, *command: object) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("FUNCTORCH_KIT_CACHE", None)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder: Path, *command: object) -> str:
    """Run to the end; SHA-256 over the log and every leaf of the newest checkpoint."""
    process = start(folder, TRAIN, *command)
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return digest(folder / "run")


def digest(run: Path) -> str:
    found = hashlib.sha256((run / "metrics.jsonl").read_bytes())
    store = checkpoint.Store(run / "checkpoints")
    saved = checkpoint.read(store.folder / str(store.latest()))
    for name in sorted(saved):
        found.update(name.encode() + saved[name].tobytes())
    meta = {name: value for name, value in saved.meta.items() if name != "seconds"}
    found.update(json.dumps(meta, sort_keys=True).encode())
    return found.hexdigest()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the short run comes to when nothing is done to it."""
    return finished(tmp_path_factory.mktemp("straight"), *RUN, *SHORT)


def stopped(folder: Path, phase: str, number: signal.Signals, times: int, at: int) -> int | None:
    """Stop the short run at a moment of a phase; the step that it stands at."""
    act = [Path(__file__).parent / "signalled.py", TRAIN, phase, int(number), times, at]
    began = time.monotonic()
    process = start(folder, *act, *RUN, *SHORT)
    out, complaint = process.communicate(timeout=300)
    assert time.monotonic() - began < LIMIT
    assert process.returncode == 128 + number, complaint
    assert out == ""
    found = re.fullmatch(rf"stopped by {number.name}( at once| at step (\d+))?\n", complaint)
    assert found, complaint
    checkpoints = folder / "run" / "checkpoints"
    step = checkpoint.Store(checkpoints).newest() if checkpoints.is_dir() else None
    if found[2] is not None:
        assert step == int(found[2])
    else:
        # Before there was a run, or the second time.
        assert phase in ("import", "compile") or times > 1
    return step


def goes_on(folder: Path, straight: str) -> None:
    """What is there is resumed, or begun, to the end that it would have had."""
    saved = (folder / "run" / "checkpoints").is_dir()
    again = ["resume=run", "quiet=true"] if saved else [*RUN, *SHORT]
    assert finished(folder, *again) == straight


def test_a_signal_amid_an_import_ends_in_one_line(tmp_path: Path):
    assert stopped(tmp_path, "import", signal.SIGINT, 1, 1) is None
    assert not (tmp_path / "run").exists()


def test_a_signal_during_a_long_compilation_does_not_wait_for_its_end(tmp_path: Path):
    began = time.monotonic()
    assert stopped(tmp_path, "compile", signal.SIGTERM, 1, 1) is None
    assert time.monotonic() - began < 15  # the call takes 30


def test_two_signals_during_a_save_leave_a_run_that_goes_on_as_if_nothing_had_been(
    tmp_path: Path, straight: str
):
    stopped(tmp_path, "save", signal.SIGTERM, 2, 3)
    goes_on(tmp_path, straight)


MOMENTS = {"import": [1], "compile": [1, 2], "step": [1, 9], "evaluation": [1, 4], "save": [1, 4]}


@pytest.mark.soak
def test_signals_at_every_moment_once_and_twice(tmp_path: Path, straight: str, table):
    with table.row("F6", "SIGINT and SIGTERM, once and twice, in each phase of a run") as row:
        for phase, moments in MOMENTS.items():
            for at in moments:
                for number in (signal.SIGINT, signal.SIGTERM):
                    for times in (1, 2):
                        folder = tmp_path / f"{row.count}"
                        stopped(folder, phase, number, times, at)
                        goes_on(folder, straight)
                        row.count += 1
        row.result = (
            f"each ends within {LIMIT:g} s with code 130 or 143 and one line, once its step is"
            " saved; each goes on to the hash of an undisturbed run"
            f" ({', '.join(MOMENTS)})"
        )


def test_a_supervised_run_that_is_killed_equals_one_that_never_was(tmp_path: Path):
    undisturbed = finished(tmp_path / "straight", *RUN, *LONG)
    process = start(tmp_path / "killed", TRAIN, *RUN, *LONG, "supervise=true", "backoff=0")
    run = tmp_path / "killed" / "run"
    kill(run, process, after=100)
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    assert "supervisor: ended with code 137: started again in 0 s, at " in complaint
    assert digest(run) == undisturbed


def kill(run: Path, supervisor: subprocess.Popen[str], after: int) -> None:
    """Kill the process that writes to a run, once it has saved a step."""
    while supervisor.poll() is None:
        saved = os.listdir(run / "checkpoints") if (run / "checkpoints").is_dir() else []
        if any(name.isdecimal() and int(name) >= after for name in saved):
            os.kill(json.loads((run / ".lock").read_text())["pid"], signal.SIGKILL)
            return
        time.sleep(0.001)


@pytest.mark.soak
def test_runs_that_kill_themselves_at_random_come_to_their_end(
    tmp_path: Path, straight: str, table, monkeypatch
):
    monkeypatch.delenv("FUNCTORCH_KIT_CACHE", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chance, said = random.Random(0), []
    with table.row("F1", "supervised: kills itself with -9 in random steps and saves") as row:
        for index in range(10):
            folder = tmp_path / f"{index}"
            folder.mkdir()
            monkeypatch.chdir(folder)
            kills = iter(range(3))

            def command(kills=kills) -> list[str]:
                saved = Path("run/checkpoints").is_dir()
                settings = ["resume=run", "quiet=true"] if saved else [*RUN, *SHORT]
                if next(kills, None) is None:
                    return [sys.executable, str(TRAIN), *settings]
                row.count += 1
                phase = chance.choice(["step", "save"])
                act = [str(TRAIN), phase, "9", "1", str(chance.randint(1, 4))]
                script = str(Path(__file__).parent / "signalled.py")
                return [sys.executable, script, *act, *settings]

            assert supervise(command, lambda: None, max_restarts=9, backoff=0, say=said.append) == 0
            assert digest(Path("run")) == straight
        row.result = "each of 10 runs ends with code 0 and the hash of an undisturbed one"
