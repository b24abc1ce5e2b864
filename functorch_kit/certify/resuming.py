"""Whether a run that is killed and resumed equals one that never was: tried out, for any job."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from functorch_kit.certify import evidence
from functorch_kit.certify.evidence import Difference, Evidence
from functorch_kit.errors import UserError
from functorch_kit.run import Interrupted, interruptible

MOMENTS = ("published", "between")
"""When a run is killed: once the checkpoint of step k is on the disk, or some steps after it."""

_GPU_FLAG = "--xla_gpu_deterministic_ops=true"


class VerificationError(UserError, RuntimeError):
    """A run that was to be verified could not be made; the message says why, in one line."""


@dataclass(frozen=True)
class Certificate:
    """What ``verify_resume`` found.

    Attributes:
        certified: whether nothing differs.
        steps: steps of each run.
        killed: moment -> the step at which that run was killed.
        resumed: moment -> the checkpoint that it went on from.
        leaves: leaves of the state and of the best parameters that were compared.
        rows: rows of the log that were compared.
        sha256: over all leaves at the last step of the run that was not killed.
        difference: the first, where there is one.
        moment: at which the run was killed that differs.
        device: platform and kind.
        note: what holds on this device only under a flag.
    """

    certified: bool
    steps: int
    killed: dict[str, int]
    resumed: dict[str, int]
    leaves: int
    rows: int
    sha256: str
    difference: Difference | None
    moment: str | None
    device: dict[str, str]
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        history = " and ".join(
            f"killed at step {step}, resumed from {self.resumed[moment]}"
            for moment, step in self.killed.items()
            if self.moment in (None, moment)
        )
        if self.difference is None:
            line = (
                f"certified: {history}, a run ends at step {self.steps} as if nothing had been:"
                f" {self.leaves} leaves, {self.rows} rows, sha256 {self.sha256[:16]}"
            )
        elif self.difference.of_any_two_runs:
            line = (
                "not certified: two runs that nothing was done to differ as well,"
                f" {self.difference}: find what depends on the process or the time"
            )
        else:
            line = f"not certified: {history}, the run differs {self.difference}"
        return line if self.note is None else f"{line}\n{self.note}"


def verify_resume(
    job: str | Callable[..., Mapping[str, Any]],
    *,
    arguments: Mapping[str, Any] | None = None,
    steps: int = 20,
    moments: Sequence[str] = MOMENTS,
    folder: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Certificate:
    """Kill runs of a job, resume them, and compare them bit for bit with one left in peace.

    Each run is a process of its own, started with this Python, its search path and environment. One
    goes ``2 * steps`` steps straight. Of the others, each is killed with SIGKILL once it has passed
    ``steps`` steps, and resumed to ``2 * steps``. Compared are the SHA-256 of every leaf of the
    state (parameters, optimizer, average, key, loss scale, guard …) at every pause, the best
    parameters, the best step, the data position, how the run ended, and every row of the log.

    The pauses are set here: a checkpoint every ``steps`` steps and at each new best, an evaluation
    every quarter of that; ``max_seconds`` and ``page`` are left out.

    Args:
        job: a function that returns the arguments of ``fit`` by name, from the top of a module or a
            script, or its name as ``"module:function"`` or ``"file.py:function"``. It is imported
            and called in each process, so give no name that you would not run.
        arguments: arguments of ``job`` by name: plain values, as JSON has them.
        steps: steps before the kill, and again after it; from 2 up.
        moments: when to kill: ``"published"``, as soon as the checkpoint of step ``steps`` is on
            the disk, and ``"between"``, a quarter of ``steps`` later; a run for each.
        folder: where to leave the runs, an empty folder; they are removed at the end if None.
        say: is told what is under way.

    Returns:
        A Certificate; ``print`` it, or ask ``certified``.

    Raises:
        UserError: a job that cannot be imported, or a run that ended otherwise than ordered.
        Interrupted: SIGINT or SIGTERM came; the process under way was ended.

    Example:
        >>> try:
        ...     verify_resume(lambda: {})
        ... except UserError as error:
        ...     print(error)
        job is '<lambda>': give a function at the top of a module, so that another process can
        import it
    """
    name = job if isinstance(job, str) else _name(job)
    if steps < 2:
        raise VerificationError(f"steps is {steps}: give a number from 2 up")
    for moment in moments or ("",):
        if moment not in MOMENTS:
            raise VerificationError(f"moment {moment!r} is not one of {', '.join(MOMENTS)}")
    say = say or (lambda line: None)
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="verify-resume-"))
        elif Path(folder).exists() and any(Path(folder).iterdir()):
            raise VerificationError(f"folder {str(folder)!r} is not empty: choose another")
        # A signal reaches this process alone or all of its group: either way none is left behind.
        requests = stack.enter_context(interruptible())
        runs = _Runs(name, dict(arguments or {}), steps, Path(folder).absolute(), requests)
        return _verified(runs, moments, say)


def _verified(runs: _Runs, moments: Sequence[str], say: Callable[[str], None]) -> Certificate:
    say(f"{2 * runs.steps} steps straight")
    straight = runs.straight("straight")
    killed: dict[str, int] = {}
    resumed: dict[str, int] = {}
    difference = moment = None
    for moment in moments:
        say(f"killed after {runs.steps} steps ({moment}), resumed to {2 * runs.steps}")
        killed[moment], resumed[moment] = runs.kill(moment)
        other = runs.straight(moment, resume=True)
        difference = evidence.first_difference(straight, other)
        if difference is not None:
            say("they differ: whether two runs left in peace do, too")
            again = evidence.first_difference(straight, runs.straight("again"))
            difference = replace(again, of_any_two_runs=True) if again else difference
            break
    leaves = straight.traces[-1][1]
    return Certificate(
        certified=difference is None,
        steps=straight.traces[-1][0],
        killed=killed,
        resumed=resumed,
        leaves=len(leaves),
        rows=len(straight.rows),
        sha256=hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest(),
        difference=difference,
        moment=moment if difference else None,
        device=straight.device,
        note=_note(straight.device),
    )


class _Runs:
    """Starts the processes, one at a time, and reads what they leave."""

    def __init__(
        self, job: str, arguments: dict[str, Any], steps: int, folder: Path, requests: list[Any]
    ):
        self.steps = steps
        self._job, self._arguments, self._folder = job, arguments, folder
        self._requests = requests

    def straight(self, name: str, *, resume: bool = False) -> Evidence:
        """A run to the end."""
        code, said = self._run(name, resume=resume)
        if code:
            raise VerificationError(f"the run {name!r} ended with code {code}: {said}")
        return evidence.read(self._folder / name)

    def kill(self, moment: str) -> tuple[int, int]:
        """A run that is killed; at which step, and the newest checkpoint that it leaves."""
        code, said = self._run(moment, kill={"after": self.steps, "moment": moment})
        if code == 0:
            raise VerificationError(
                f"the run ended before it could be killed after step {self.steps}: it stops early,"
                " so give fewer steps"
            )
        if code != -signal.SIGKILL:
            raise VerificationError(f"the run {moment!r} ended with code {code}: {said}")
        saved = (self._folder / moment / "checkpoints").iterdir()
        newest = max((int(path.name) for path in saved if path.name.isdecimal()), default=0)
        trace = evidence.read(self._folder / moment).traces
        return trace[-1][0], newest

    def _run(self, name: str, *, resume: bool = False, kill: Any = None) -> tuple[int, str]:
        changes = {
            "run_dir": str(self._folder / name),
            "resume": resume,
            "overwrite": False,
            "steps": 2 * self.steps,
            "checkpoint_every": self.steps,
            "eval_every": max(1, self.steps // 4),
            "log_every": 1,
            "max_seconds": None,
            "page": None,
            "quiet": True,
        }
        order = {"job": self._job, "arguments": self._arguments, "changes": changes, "kill": kill}
        order["trace"] = str((self._folder / name).with_suffix(".trace"))
        file = (self._folder / name).with_suffix(".json")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            file.write_text(json.dumps(order), encoding="utf-8")
        except TypeError as error:
            raise VerificationError(f"arguments are not JSON: {error}") from None
        return self._process(file)

    def _process(self, order: Path) -> tuple[int, str]:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with order.with_suffix(".stderr").open("wb") as errors:
            process = subprocess.Popen(
                # -P: the working directory counts only where it counts for this process, too.
                [sys.executable, "-P", "-m", "functorch_kit.certify.child", str(order)],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                while process.poll() is None:
                    if self._requests:
                        raise Interrupted(self._requests[0])
                    time.sleep(0.01)
            finally:
                process.kill()
                process.wait()
        lines = order.with_suffix(".stderr").read_text(errors="replace").split("\n")
        return process.returncode, next((line for line in reversed(lines) if line.strip()), "")


def _name(job: Callable[..., Any]) -> str:
    name, module = getattr(job, "__qualname__", repr(job)), getattr(job, "__module__", None)
    if not name.isidentifier() or module is None:
        raise VerificationError(
            f"job is {name!r}: give a function at the top of a module, so that another process can"
            " import it"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        raise VerificationError(
            f"job {name!r} was defined in a notebook or an interactive session: move it to a file"
        )
    return f"{Path(file).absolute()}:{name}"


def _note(device: Mapping[str, str]) -> str | None:
    """A GPU adds in an order of its own, unless told not to."""
    if device.get("platform") not in ("gpu", "cuda", "rocm"):
        return None
    if _GPU_FLAG.removesuffix("=true") in os.environ.get("XLA_FLAGS", ""):
        return f"XLA_FLAGS={_GPU_FLAG} is set: exact, at the price of some speed"
    return (
        f"on this {device.get('kind', 'GPU')} nothing promises it in general: scatters may add in"
        " any order, and each process may tune to other kernels;"
        f" set XLA_FLAGS={_GPU_FLAG}, which costs speed"
    )
