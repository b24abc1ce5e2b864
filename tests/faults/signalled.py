"""A script that is stopped by itself: ``signalled.py SCRIPT PHASE SIGNAL TIMES AT [settings]``.

At the chosen moment of the phase the process sends itself the signal, as often as asked. The script
is run as if Python had been started with it.
"""

import functools
import hashlib
import importlib.abc
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BETWEEN = 0.02  # seconds: two at once are one, for Python's handlers


def _send(number: int, times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)
        time.sleep(_BETWEEN)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Acts in the middle of an import."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self.name, self.act = name, act

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == self.name:
            self.act()


def _before(owner: Any, name: str, call: int, act: Callable[[], None]) -> None:
    """Act before the so many-eth call of a function, counted from 1."""
    function, calls = getattr(owner, name), [0]

    @functools.wraps(function)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            act()
        return function(*arguments, **keywords)

    setattr(owner, name, wrapped)


def _in_a_long_call(act: Callable[[], None]) -> None:
    """As a long compilation: the main thread is outside Python, where no handler runs."""
    threading.Timer(0.1, act).start()
    # In a tenth of a second the signal is there; this takes half a minute.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 60_000_000)


def plan(phase: str, act: Callable[[], None], at: int) -> None:
    """See to it that ``act`` is called at the so many-eth moment of a phase."""
    if phase == "import":
        sys.meta_path.insert(0, _WhenImported("jax._src.api", act))
    elif phase == "compile":
        import jax

        _before(jax.stages.Lowered, "compile", at, functools.partial(_in_a_long_call, act))
    elif phase == "step":
        from functorch_kit.train import Stepper

        _before(Stepper, "__call__", at, act)
    elif phase == "evaluation":
        from functorch_kit.train import Evaluator

        _before(Evaluator, "__call__", at, act)
    elif phase == "save":
        from functorch_kit.checkpoint import manifest

        # In the thread that saves: its files are written, and not yet published.
        _before(manifest, "write", at, act)
    else:
        raise SystemExit(f"no such phase: {phase}")


def main() -> None:
    """Run the script until it stops itself."""
    script, phase, number, times, at, *settings = sys.argv[1:]
    plan(phase, functools.partial(_send, int(number), int(times)), int(at))
    sys.argv = [script, *settings]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
