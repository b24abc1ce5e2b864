"""Several processes are one run: the same decisions, the same losses, one end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from functorch_kit import checkpoint
from functorch_kit.distributed import ProcessError, Team, connect, launch, place_of

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "together.py"
Start = Callable[..., int]


@pytest.fixture
def environment(script_environment: dict[str, str]) -> dict[str, str]:
    return {**script_environment, "PYTHONPATH": str(ROOT)}


def together(environment: dict[str, str], count: int, *words: object) -> tuple[int, list[str]]:
    said: list[str] = []
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return launch(command, count, environment=environment, say=said.append), said


def alone(environment: dict[str, str], *words: object) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [("1of2", "write it <index>/<count>@<host>:<port>"), ("", "write it"), ("a/2@b:1", "write it")],
)
def test_a_place_that_cannot_be_read_is_refused(text: str, message: str):
    with pytest.raises(ProcessError, match=message):
        place_of({"FUNCTORCH_KIT_PROCESS": text})


def test_half_of_the_settings_are_refused():
    with pytest.raises(ProcessError, match="several processes need all three"):
        connect(index=1)


def test_one_process_decides_by_itself():
    team = Team()
    assert (team.said(3), team.asked(None), team.asked("x"), team.is_main) == (3, None, "x", True)


def test_all_processes_hear_what_process_0_says_and_what_any_asks_for(
    environment: dict[str, str], tmp_path: Path
):
    heard = tmp_path / "heard"
    code, said = together(environment, 2, "decide", 1, heard)
    assert (code, said) == (0, [])
    assert json.loads(heard.read_text()) == [7, [0], 16, 15, 0]


def test_two_processes_train_as_one_and_one_goes_on_from_what_they_saved(
    environment: dict[str, str], tmp_path: Path, proofs: ModuleType, x64: None,
    standard_promotion: None,
):  # fmt: skip
    expected = proofs.trained("mlp", "plain", 30)["losses"]
    run = tmp_path / "run"
    code, said = together(environment, 2, run, 20, "mlp", "fsdp=2")
    assert (code, said) == (0, [])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    np.testing.assert_allclose(losses, expected[:20], rtol=0, atol=1e-10)
    step = run / "checkpoints" / "20"
    sizes = [(step / "pieces" / f"{process}.bin").stat().st_size for process in (0, 1)]
    assert sizes[0] == sizes[1] > 0
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == [".lock", "10", "20"]
    leaf = checkpoint.read(step)["params/hidden_0/kernel"]
    assert leaf.shape == (64, 64)
    assert np.isfinite(leaf).all()
    # Another number of processes, another mesh: the very same numbers go on.
    further = alone({**environment, "DEVICES": "2"}, run, 30, "mlp", "data=2", "resume")
    np.testing.assert_allclose(further["losses"], expected, rtol=0, atol=1e-10)


def test_each_process_reads_its_own_records_in_the_order_of_one(
    environment: dict[str, str], tmp_path: Path, proofs: ModuleType, x64: None,
    standard_promotion: None,
):  # fmt: skip
    expected = proofs.trained("mlp", "plain", 10)["losses"]
    assert together(environment, 2, tmp_path / "run", 10, "read", "data=2") == (0, [])
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-10)


def test_a_process_that_is_killed_ends_all_of_them_at_once(tmp_path: Path):
    code = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['FUNCTORCH_KIT_PROCESS'][0])"
        ".write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )

    def kill() -> None:
        while not (tmp_path / "1").exists() or not (tmp_path / "1").read_text():
            time.sleep(0.01)
        os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)

    threading.Thread(target=kill).start()
    said: list[str] = []
    began = time.monotonic()
    assert launch([sys.executable, "-S", "-c", code], 3, say=said.append) == 137
    assert time.monotonic() - began < 10
    assert said == ["process 1 of 3 ended by SIGKILL: the others are ended"]
    for name in "012":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / name).read_text()), 0)


def test_the_last_words_of_the_process_that_failed_are_passed_on(capfd: pytest.CaptureFixture[str]):
    code = "import os\nif os.environ['FUNCTORCH_KIT_PROCESS'][0] == '1': raise ValueError('lost')"
    assert launch([sys.executable, "-S", "-c", code], 2, say=lambda line: None) == 1
    assert "ValueError: lost" in capfd.readouterr().err


def test_a_signal_reaches_each_process_once_and_they_end_in_their_own_time(tmp_path: Path):
    code = (
        "import os, pathlib, signal, sys, time\n"
        f"own = pathlib.Path({str(tmp_path)!r}, os.environ['FUNCTORCH_KIT_PROCESS'][0])\n"
        "def stop(number, frame):\n"
        "    own.write_text(own.read_text() + 'stopped ')\n"
        "    time.sleep(0.3 * int(own.name))\n"
        "    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "own.write_text('ready ')\n"
        "time.sleep(60)"
    )

    def stop() -> None:
        while [p.name for p in sorted(tmp_path.iterdir()) if p.read_text()] != ["0", "1"]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert launch([sys.executable, "-S", "-c", code], 2) == 143
    assert [(tmp_path / name).read_text() for name in "01"] == ["ready stopped "] * 2
