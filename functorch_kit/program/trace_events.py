"""What the profiler recorded: operations of a compiled program, in time, without a viewer."""

from __future__ import annotations

import bisect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Event(NamedTuple):
    """An operation while it runs on one thread or stream; times in ns.

    Attributes:
        line: the thread or the stream.
        name: the HLO instruction, or the kernel where the instruction is not recorded.
        start: when it began.
        end: when it ended.
        module: the compiled program it belongs to, ``""`` where that is not recorded.
    """

    line: int
    name: str
    start: float
    end: float
    module: str


class Trace(NamedTuple):
    """One recording.

    Attributes:
        windows: start and end of each step, in ns, as the host saw them.
        events: operations of every thread and stream, nested ones too.
        in_flight: operations that returned before their work was done: from start to the end of
            the work, on threads that record nothing.
        on_device: they ran on a device with a timeline of its own, not on the host's threads.
    """

    windows: tuple[tuple[float, float], ...]
    events: tuple[Event, ...]
    in_flight: tuple[Event, ...]
    on_device: bool


def read_trace(path: Path, window: str) -> Trace:
    """Read a recording of ``jax.profiler``.

    Device timelines are taken where there are any: the line of XLA's operations, or else the
    streams with their kernels. On a CPU operations run on the host's threads.

    Args:
        path: the ``.xplane.pb`` file.
        window: name of the annotation that each step stands in.

    Returns:
        The recording.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with jax.profiler.trace(folder), jax.profiler.TraceAnnotation("step"):
        ...         _ = jax.jit(jnp.sort)(jnp.arange(9.0)).block_until_ready()
        ...     trace = read_trace(next(Path(folder).rglob("*.xplane.pb")), "step")
        >>> len(trace.windows), bool(trace.events)
        (1, True)
    """
    with warnings.catch_warnings():
        # jaxlib 0.12: "builtin type event_stats has no __module__ attribute", once per process.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        host = [plane for plane in planes if not plane.name.startswith("/device:")]
        windows = sorted(
            (event.start_ns, event.start_ns + event.duration_ns)
            for plane in host
            for line in plane.lines
            for event in line.events
            if event.name == window
        )
        events = [
            event
            for number, line in enumerate(_device_lines(planes))
            for event in _events(line, number, on_device=True)
        ]
        on_device = bool(events)
        ended: list[Event] = []
        if not on_device:
            # tf_XLAEigen, tf_XLAPjRtCpuClient (jax 0.10), tf_XLAExecute (jax 0.12) and, for small
            # programs, the very thread that called: what an event says of itself decides.
            lines = (line for plane in host for line in plane.lines)
            for number, line in enumerate(lines):
                for event in _events(line, number, on_device=False):
                    (ended if event.name.startswith("end: ") else events).append(event)
    return Trace(tuple(windows), tuple(events), tuple(_in_flight(events, ended)), on_device)


def _device_lines(planes: list[Any]) -> Iterator[Any]:
    for plane in planes:
        if not plane.name.startswith("/device:"):
            continue
        lines = list(plane.lines)
        named = [line for line in lines if line.name == "XLA Ops"]
        yield from named or (line for line in lines if line.name.startswith("Stream"))


def _events(line: Any, number: int, on_device: bool) -> Iterator[Event]:
    for event in line.events:
        name, module = event.name, ""
        if name.startswith("end: "):
            yield Event(number, name, event.start_ns, event.start_ns, "")
            continue
        stats = {key: value for key, value in event.stats if key in ("hlo_op", "hlo_module")}
        if not on_device and "hlo_op" not in stats:
            continue  # the runtime's own: executing, waiting, starting a thread
        name, module = str(stats.get("hlo_op", name)), str(stats.get("hlo_module", ""))
        if on_device and (found := re.match(r"%([\w.\-]+) = ", name)):
            name = found.group(1)  # a TPU records the whole instruction
        yield Event(number, name, event.start_ns, event.start_ns + event.duration_ns, module)


def _in_flight(events: list[Event], ended: list[Event]) -> Iterator[Event]:
    """Pair each ``end: name`` with the last start of that name before it."""
    starts: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.start):
        starts.setdefault(event.name, []).append(event)
    for end in ended:
        candidates = starts.get(end.name.removeprefix("end: "), [])
        place = bisect.bisect_right(candidates, end.start, key=lambda event: event.start)
        if place:
            yield candidates[place - 1]._replace(end=end.start)
