"""A few steps under JAX's profiler, put down to layers and kinds of operation, without a viewer."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.stages import Compiled

from functorch_kit.errors import UserError
from functorch_kit.program.executable import Program, compile
from functorch_kit.program.hlo import Module, hlo_text, read_module
from functorch_kit.program.operation_kinds import UNKNOWN, Operation, kernel_kind, operation_of
from functorch_kit.program.profile_table import Profile, ProfileRecord
from functorch_kit.program.trace_events import Event, Trace, read_trace
from functorch_kit.program.variants import Arguments, Threading
from functorch_kit.program.wall_time import Spent, divide
from functorch_kit.types import PyTree

_STEP = "functorch_kit_step"


class ProfileError(UserError, RuntimeError):
    """The steps cannot be recorded.

    Example:
        >>> issubclass(ProfileError, RuntimeError)
        True
    """


def profile(
    fn: Callable[..., Any],
    *args: PyTree,
    steps: int = 5,
    carry: int | None = None,
    folder: Path | str | None = None,
) -> Profile:
    """Record a few steps and say where their time went.

    Each operation of the compiled program is put down to the ``jax.named_scope`` it came from and
    to a kind; a fusion of several counts to one of them. Every instant of a step is
    divided among what ran in it, so the parts add up to the wall time; what nothing is recorded of
    is stated, not left out.

    Args:
        fn: a ``Program``, something compiled ahead of time by JAX, or a function to compile.
        *args: its arguments; copied, so that a program that donates them leaves the caller's be.
        steps: how many steps to record, from 1 up; two more run before, to warm up.
        carry: the argument that the output, or the first item of an output tuple, replaces in the
            next step; None calls with the same arguments each time.
        folder: where to keep the recording; None throws it away.

    Returns:
        The profile.

    Raises:
        ProfileError: a profiler is running already, or nothing was recorded.

    Example:
        >>> import jax.numpy as jnp
        >>> def net(w, x):
        ...     with jax.named_scope("head"):
        ...         return jnp.tanh(x @ w)
        >>> found = profile(net, jnp.ones((256, 128)), jnp.ones((512, 256)), steps=2)
        >>> sorted({record.path for record in found.records}), found.steps
        (['head'], 2)
    """
    if steps < 1:
        raise ProfileError(f"steps is {steps}: give 1 or more")
    program = fn if isinstance(fn, Program | Compiled) else compile(fn, *args, name=_name(fn))
    runner = _Runner(program, args, Threading(carry))
    runner.run(2)
    plain = min(runner.run(steps), runner.run(steps)) / steps
    # Not the caller's folder for a recording nobody asked to keep.
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        path = _record(lambda: runner.run(steps), Path(str(place)))
        trace = read_trace(path, _STEP)
    module = read_module(hlo_text(program))
    if not trace.events:
        raise ProfileError("the profiler recorded no operation: this backend is not known here")
    found = _Attribution(module)
    spent = divide(trace, found.is_loop)
    viewer = next(iter(sorted(path.parent.glob("*.trace.json.gz"))), path) if folder else None
    return _profile(_name(program), trace, spent, found, plain, steps, viewer)


class _Runner:
    """Calls a program in a row, each waited for, its carry passed on."""

    def __init__(self, program: Any, args: Arguments, threading: Threading) -> None:
        self.program = program
        self.threading = threading
        copied = lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else leaf  # noqa: E731
        self.args = jax.tree.map(copied, args)

    def run(self, steps: int) -> float:
        """Seconds that the steps took."""
        began = time.perf_counter()
        for number in range(steps):
            with jax.profiler.StepTraceAnnotation(_STEP, step_num=number):
                output = jax.block_until_ready(self.program(*self.args))
            self.args = self.threading.advance(self.args, output)
        return time.perf_counter() - began


def _record(run: Callable[[], Any], folder: Path) -> Path:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it would record every Python call, and cost more than it
    with _refusals():
        jax.profiler.start_trace(str(folder), profiler_options=options)
    try:
        run()
    finally:
        jax.profiler.stop_trace()
    files = sorted(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ProfileError(f"the profiler wrote nothing to {str(folder)!r}")
    return files[-1]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise ProfileError(
            f"the profiler does not start ({message}): stop the other one"
        ) from error


class _Attribution:
    """Looks up where a recorded operation belongs."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._known: dict[tuple[str, str], Operation] = {}

    def of(self, name: str, module: str) -> Operation:
        """The operation of that name in that module."""
        if (name, module) not in self._known:
            instruction = self.module.instructions.get(name)
            # Another program that ran in between has instructions of the same names.
            if instruction is None or module not in ("", self.module.name):
                found = UNKNOWN._replace(kind=kernel_kind(name))
            else:
                found = operation_of(self.module, instruction)
            self._known[name, module] = found
        return self._known[name, module]

    def is_loop(self, event: Event) -> bool:
        """Whether an event is there to run others."""
        instruction = self.module.instructions.get(event.name)
        return instruction is not None and instruction.opcode in ("while", "conditional", "call")


def _profile(
    name: str,
    trace: Trace,
    spent: Spent,
    found: _Attribution,
    plain: float,
    steps: int,
    viewer: Path | None,
) -> Profile:
    step = spent.wall / steps
    groups: dict[Operation, dict[tuple[str, str], float]] = {}
    for who, seconds in spent.operations.items():
        groups.setdefault(found.of(*who), {})[who] = seconds / steps
    records = [
        ProfileRecord(
            *operation,
            seconds=sum(parts.values()),
            share=sum(parts.values()) / step if step else 0.0,
            calls=sum(spent.calls[who] for who in parts) / steps,
            longest=max(parts, key=lambda who: parts[who])[0],
        )
        for operation, parts in groups.items()
    ]
    records.sort(key=lambda record: -record.seconds)
    explained = sum(spent.operations.values())
    platform = jax.default_backend() if trace.on_device else "cpu"
    return Profile(
        name=name,
        records=tuple(records),
        steps=steps,
        step_seconds=step,
        plain_seconds=plain,
        host_seconds=spent.host / steps,
        unexplained_seconds=spent.unexplained / steps,
        parallelism=spent.busy / explained if explained else 0.0,
        trace_file=None if viewer is None else str(viewer),
        platform=platform,
        notes=tuple(_notes(trace, step, plain, steps, records)),
    )


def _notes(
    trace: Trace, step: float, plain: float, steps: int, records: list[ProfileRecord]
) -> Iterator[str]:
    if len(trace.windows) != steps:
        yield f"note: {len(trace.windows)} of {steps} steps were recorded"
    if plain and step > 1.2 * plain:
        yield f"note: recording made a step {step / plain:.1f} times as long: trust shares, not ms"
    unknown = sum(record.seconds for record in records if record.kind == "unknown")
    if step and unknown > 0.01 * step:
        yield f"note: {unknown / step:.0%} of a step is in operations that the program's text lacks"
    if records and all(record.path == "" for record in records):
        yield "note: no operation stands in a layer: name the parts with jax.named_scope"


def _name(fn: Any) -> str:
    if isinstance(fn, Program):
        return fn.name
    return getattr(fn, "__name__", "program") if not isinstance(fn, Compiled) else "program"
