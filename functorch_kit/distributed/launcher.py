"""Several processes on this machine that live and die together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from functorch_kit.distributed.processes import VARIABLE
from functorch_kit.errors import UserError

_STOPS = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 3.0
_SAVING_SECONDS = 120.0
_KEPT = 4096


def launch(
    command: Sequence[str],
    count: int,
    *,
    environment: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> int:
    """Start a command several times, as the processes of one run, and wait for all of them.

    Where one ends with another code than 0, the others are ended as well: without it they would
    wait for ever. A process that was stopped (SIGSTOP, a debugger) is found by the others, whose
    heartbeats it does not answer, and is killed. SIGINT and SIGTERM are passed on to all.

    Args:
        command: program first.
        count: how many processes.
        environment: of the processes; that of this one if None.
        say: is told why they were ended; a line on standard error if None.

    Returns:
        0, or the code of the process that ended first with another one, 128 + its number where a
        signal killed it.

    Raises:
        UserError: a command that cannot be started.

    Example:
        >>> code = "import os; raise SystemExit(os.environ['FUNCTORCH_KIT_PROCESS'][0] == '1')"
        >>> launch([sys.executable, "-c", code], 2, say=print)
        process 1 of 2 ended with code 1: the others are ended
        1
    """
    say = say or _say
    address = f"127.0.0.1:{free_port()}"
    started: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        # All say the same of what is wrong with all of them: of the others it is kept.
        told = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        stopped = stack.enter_context(_passed_on(started))
        try:
            for index in range(count):
                place = {VARIABLE: f"{index}/{count}@{address}"}
                started.append(
                    subprocess.Popen(
                        list(command),
                        env={**(os.environ if environment is None else environment), **place},
                        stdout=None if index == 0 else subprocess.DEVNULL,
                        stderr=None if index == 0 else told[index],
                        process_group=0,
                    )
                )
            return _waited(started, told, stopped, say)
        except OSError as error:
            raise UserError(f"{command[0]!r} cannot be started: {error.strerror}") from error
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on.

    Example:
        >>> free_port() > 1023
        True
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _waited(
    started: list[subprocess.Popen[bytes]],
    told: Sequence[IO[bytes]],
    stopped: list[int],
    say: Callable[[str], None],
) -> int:
    while True:
        codes = [process.poll() for process in started]
        if all(code == 0 for code in codes):
            return 0
        failed = [(index, code) for index, code in enumerate(codes) if code]
        # One that was killed is the cause; others soon fail, or abort, for want of it.
        failed.sort(key=lambda each: (each[1] > 0, each[1] == -signal.SIGABRT))
        if failed and stopped:
            # They were asked to, and save what they have first: each in its own time.
            _wait(started, _SAVING_SECONDS)
            return _code(failed[0][1])
        if failed:
            first = failed[0][0]
            _say_why(started, *failed[0], say)
            if first:
                told[first].seek(max(0, told[first].tell() - _KEPT))
                sys.stderr.write(told[first].read().decode(errors="replace"))
                sys.stderr.flush()
            _wait(started, _GRACE_SECONDS)
            return _code(failed[0][1])
        time.sleep(_POLL_SECONDS)


def _say_why(
    started: list[subprocess.Popen[bytes]], first: int, code: int, say: Callable[[str], None]
) -> None:
    count = len(started)
    frozen = [index for index, process in enumerate(started) if _is_frozen(process)]
    if frozen:
        which = ", ".join(map(str, frozen))
        say(f"process {which} of {count} is stopped and answers no more: all are ended")
    else:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        say(f"process {first} of {count} ended {how}: the others are ended")


def _wait(started: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Give the others a moment to end by themselves, and then none."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(process.poll() is None for process in started):
        time.sleep(_POLL_SECONDS)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _code(code: int) -> int:
    return 128 - code if code < 0 else code


def _is_frozen(process: subprocess.Popen[bytes]) -> bool:
    try:
        text = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] in ("T", "t")


def _say(line: str) -> None:
    sys.stderr.write(f"launcher: {line}\n")
    sys.stderr.flush()


@contextmanager
def _passed_on(started: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to every process, each in a group of its own, and to none twice."""
    stopped: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _STOPS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
