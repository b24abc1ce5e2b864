"""A run that is started again when its process dies, and not when that would be in vain."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from functorch_kit.errors import UserError

FINAL = (0, 2, 3)
"""Codes after which there is nothing to start again: done, refused, training itself failed."""

_STOPS = (signal.SIGINT, signal.SIGTERM)
_KEPT = 8192
_LONGEST_PAUSE = 300.0


class _Ended(NamedTuple):
    """How a process ended."""

    code: int
    """As a shell has it: 128 + its number where a signal killed it."""
    error: str
    """Its last words on standard error, without addresses."""


def supervise(
    command: Callable[[], Sequence[str]],
    progress: Callable[[], object],
    *,
    max_restarts: int = 5,
    backoff: float = 1.0,
    say: Callable[[str], None] | None = None,
) -> int:
    """Run a command until it is done, and start it again when it crashes.

    A crash is a signal that killed it, or an exception (code 1). It is given up after a code in
    ``FINAL``, after SIGINT or SIGTERM, when it fails twice with the same code and last line and no
    progress in between, and after ``max_restarts`` restarts without any progress. Each pause before
    a restart without progress is twice the one before, 5 minutes at most.

    The process is in a process group of its own, so that a Ctrl-C does not reach it twice: each
    SIGINT and SIGTERM that comes here is passed on to it once.

    Args:
        command: returns the arguments of the process to start, program first; asked each time.
        progress: how far it is: any value, which differs once it got further; see ``newest_step``.
        max_restarts: restarts in a row without progress.
        backoff: seconds before the first restart.
        say: is told of each restart, and why there is no other; a line on standard error if None.

    Returns:
        The code of the last process, 128 + its number where a signal killed it.

    Raises:
        UserError: limits that cannot be used, or a command that cannot be started.

    Example:
        >>> codes = iter([1, 9, 0])
        >>> def command():
        ...     return [sys.executable, "-c", f"raise SystemExit({next(codes)})"]
        >>> supervise(command, progress=lambda: None, backoff=0.01, say=print)
        ended with code 1: started again in 0.01 s, at None
        ended with code 9: started again in 0.02 s, at None
        0
    """
    if max_restarts < 0 or backoff < 0:
        raise UserError(
            f"max_restarts is {max_restarts} and backoff {backoff:g}: give numbers from 0 up"
        )
    say = say or _say
    restarts, before = 0, None
    with _passed_on() as passing:
        while True:
            reached = progress()
            ended = passing.run(list(command()))
            if ended.code in FINAL or ended.code in [128 + each for each in _STOPS]:
                return ended.code
            if passing.stopped is not None:
                return 128 + passing.stopped
            now, what = progress(), f"ended with code {ended.code}"
            if now != reached:
                restarts, before = 0, None
            if ended.code == 1 and before == ended:
                say(f"{what} at {now} a second time, given up: {ended.error}")
                return ended.code
            if restarts == max_restarts:
                say(f"{what} at {now}, given up after {restarts} restarts without progress")
                return ended.code
            pause = min(backoff * 2**restarts, _LONGEST_PAUSE)
            say(f"{what}: started again in {pause:g} s, at {now}")
            if passing.wait(pause):
                return 128 + (passing.stopped or 0)
            restarts, before = restarts + 1, ended


def newest_step(run_dir: str | Path) -> int | None:
    """The newest checkpoint in a run's folder by its name; whether it is sound is not asked.

    Example:
        >>> newest_step("no/such/run") is None
        True
    """
    try:
        names = os.listdir(Path(run_dir) / "checkpoints")
    except OSError:
        return None
    return max((int(name) for name in names if name.isdecimal()), default=None)


class _Passing:
    """Runs one process at a time, and passes on to it what it is told to stop by."""

    def __init__(self) -> None:
        self.stopped: int | None = None
        self._untold: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = number
        self._untold.append(number)
        self._tell()

    def _tell(self) -> None:
        # Also called by a handler in the middle of itself: each number is taken out once.
        while self._process is not None and self._untold:
            self._process.send_signal(self._untold.pop(0))

    def run(self, command: list[str]) -> _Ended:
        try:
            self._process = subprocess.Popen(command, stderr=subprocess.PIPE, process_group=0)
        except OSError as error:
            raise UserError(f"{command[0]!r} cannot be started: {error.strerror}") from error
        process = self._process
        try:
            self._tell()
            last = _repeat(process)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._process = None
            if process.stderr is not None:
                process.stderr.close()
        lines = [line for line in last.decode(errors="replace").splitlines() if line.strip()]
        error = re.sub(r"0x[0-9a-fA-F]+", "0x…", lines[-1]) if lines else ""
        return _Ended(code if code >= 0 else 128 - code, error)

    def wait(self, seconds: float) -> bool:
        """Whether a signal came before the time was over."""
        ends = time.monotonic() + seconds
        while self.stopped is None and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self.stopped is not None


def _repeat(process: subprocess.Popen[bytes]) -> bytes:
    """Pass on what a process says on standard error until it ends; the last of it."""
    assert process.stderr is not None
    handle, last = process.stderr.fileno(), b""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two parts
    while True:
        # A process of its own that outlives it may keep the pipe open: its end is not waited for.
        ended = process.poll() is not None
        if select.select([handle], [], [], 0 if ended else 0.05)[0]:
            if text := os.read(handle, 65536):
                last = (last + text)[-_KEPT:]
                sys.stderr.write(decoder.decode(text))
                sys.stderr.flush()
                continue
            return last
        if ended:
            return last


def _say(line: str) -> None:
    sys.stderr.write(f"supervisor: {line}\n")
    sys.stderr.flush()


@contextmanager
def _passed_on() -> Iterator[_Passing]:
    passing = _Passing()
    before = {number: signal.signal(number, passing.stop) for number in _STOPS}
    try:
        yield passing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
