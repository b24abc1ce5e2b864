"""Which ends are worth another start, how long it waits, and to whom signals go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from functorch_kit.errors import UserError
from functorch_kit.supervise import newest_step, supervise

ROOT = Path(__file__).parents[1]


def ends(*codes: int | str, backoff: float = 0.0, steps: Iterable[int] = (), **options):
    """Supervise processes that end so, one after the other; its code and what it said."""
    said: list[str] = []
    programs, reached = iter(codes), iter(steps)

    def command() -> list[str]:
        program = next(programs)
        text = f"raise SystemExit({program})" if isinstance(program, int) else program
        return [sys.executable, "-S", "-c", text]

    code = supervise(
        command, lambda: next(reached, None), backoff=backoff, say=said.append, **options
    )
    assert next(programs, None) is None, "a process was not started"
    return code, said


KILL = "import os; os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("code", [0, 2, 3])
def test_what_is_done_refused_or_diverged_is_not_started_again(code: int):
    assert ends(code) == (code, [])


def test_a_crash_is_followed_by_another_start_until_it_is_done():
    code, said = ends(KILL, 1, KILL, 0)
    assert code == 0
    assert [line.partition(":")[0] for line in said] == [
        f"ended with code {number}" for number in (137, 1, 137)
    ]


def test_the_same_exception_at_the_same_step_is_given_up_the_second_time():
    fault = "raise ValueError('no embedding at 0x7f{}')"
    code, said = ends(fault.format(12), fault.format(34), steps=[0, 10, 10, 10])
    assert code == 1
    assert said[1] == (
        "ended with code 1 at 10 a second time, given up: ValueError: no embedding at 0x…"
    )


def test_another_exception_or_some_progress_is_worth_another_start():
    fault = "raise ValueError('a')"
    assert ends(fault, "raise ValueError('b')", fault, 0)[0] == 0
    # Progress as asked before and after each: it gets further every time.
    assert ends(fault, fault, fault, 0, steps=[0, 10, 10, 20, 20, 30])[0] == 0


def test_restarts_without_progress_have_a_limit_and_ever_longer_pauses():
    code, said = ends(KILL, KILL, KILL, max_restarts=2, backoff=0.01)
    assert code == 137
    assert said == [
        "ended with code 137: started again in 0.01 s, at None",
        "ended with code 137: started again in 0.02 s, at None",
        "ended with code 137 at None, given up after 2 restarts without progress",
    ]
    # With progress, the count and the pause begin anew.
    code, said = ends(KILL, KILL, KILL, 0, max_restarts=1, backoff=0.01, steps=[0, 1, 1, 2, 2, 3])
    assert code == 0
    assert all("in 0.01 s" in line for line in said)


def test_limits_and_programs_that_cannot_be_used_are_refused():
    with pytest.raises(UserError, match="max_restarts is -1 and backoff 1: give numbers from 0"):
        supervise(list, lambda: None, max_restarts=-1)
    with pytest.raises(UserError, match="'/no/such/program' cannot be started: No such file"):
        supervise(lambda: ["/no/such/program"], lambda: None)


def test_what_a_process_says_on_standard_error_is_passed_on_while_it_runs(capsys):
    text = "import sys; sys.stderr.write('übel\\n'); sys.exit(2)"
    assert ends(text) == (2, [])
    assert capsys.readouterr().err == "übel\n"


COUNTING = """
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: got.append(number))
print("ready", flush=True)
ends = time.monotonic() + 30
while not got and time.monotonic() < ends:
    time.sleep(0.01)
time.sleep(0.3)
print(*map(int, got), flush=True)
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGTERM, 1)]
)
def test_a_signal_reaches_the_process_once_and_ends_the_supervision(number: int, code: int):
    program = COUNTING.format(code=code)
    text = (
        "import sys; from functorch_kit.supervise import supervise\n"
        f"sys.exit(supervise(lambda: [sys.executable, '-c', {program!r}], lambda: None))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    # To its whole group, as a terminal does.
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert out == f"{number}\n"
    assert process.returncode == 128 + number


def test_a_signal_while_it_waits_ends_the_supervision():
    def stopped_while_waiting(line: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    command = [sys.executable, "-S", "-c", "raise SystemExit(1)"]
    code = supervise(lambda: command, lambda: None, backoff=60, say=stopped_while_waiting)
    assert code == 143
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_newest_step_is_read_from_the_names(tmp_path: Path):
    assert newest_step(tmp_path) is None
    for name in ("9", "10", ".tmp-11", "12.damaged"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_step(tmp_path) == 10
