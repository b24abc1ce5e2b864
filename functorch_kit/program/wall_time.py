"""Whose the wall time is: each instant divided among the operations that run in it."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from functorch_kit.program.trace_events import Event, Trace

_Who = tuple[str, str]
"""An operation's name and its module's."""
_WINDOW: _Who = ("", "")


@dataclass
class Spent:
    """Where the time within the steps went; seconds over all steps. The parts add up to ``wall``.

    Attributes:
        wall: from start to end of the steps.
        operations: by name of the operation (and its module).
        calls: how often each ran.
        host: before a step's first operation and after its last: dispatch, and waiting for it.
        unexplained: between operations, where nothing was recorded.
        busy: time of all threads in operations, so ``busy`` over the operations' sum is how many
            ran at once on average.
    """

    wall: float = 0.0
    operations: dict[_Who, float] = field(default_factory=dict)
    calls: Counter[_Who] = field(default_factory=Counter)
    host: float = 0.0
    unexplained: float = 0.0
    busy: float = 0.0


def divide(trace: Trace, is_loop: Callable[[Event], bool]) -> Spent:
    """Divide the wall time of the steps among the operations.

    At each instant the innermost operation of every thread counts, in equal shares;
    what returned before its work was done only while nothing else runs; a loop or a call, which is
    there to run others, only while none of those do.

    Args:
        trace: the recording.
        is_loop: whether an operation is there to run others.

    Returns:
        The division.

    Example:
        >>> outer, inner = Event(0, "while", 0, 10e9, ""), Event(0, "dot", 2e9, 8e9, "")
        >>> spent = divide(Trace(((-1e9, 12e9),), (outer, inner), (), False), lambda e: False)
        >>> sorted(spent.operations.items())
        [(('dot', ''), 6.0), (('while', ''), 4.0)]
        >>> spent.wall, spent.host
        (13.0, 3.0)
    """
    spent = Spent()
    spent.calls.update((each.name, each.module) for each in trace.events if _within(trace, each))
    in_flight = ((event.start, event.end, event) for event in trace.in_flight)
    bounds = list(_bounds(_segments(trace.events), lambda event: 2 if is_loop(event) else 0))
    bounds += _bounds(in_flight, lambda event: 2 if is_loop(event) else 1)
    for start, end in trace.windows:
        bounds += [(start, 1, -1, _WINDOW), (end, -1, -1, _WINDOW)]
    bounds.sort(key=lambda bound: bound[:2])

    # The three ranks: operations, work in flight, loops. The first that is not empty counts.
    active: tuple[Counter[_Who], ...] = (Counter(), Counter(), Counter())
    inside, seen, pending, before = False, False, 0.0, 0.0
    for time, change, rank, who in bounds:
        took = (time - before) / 1e9
        before = time
        if inside and took > 0:
            spent.wall += took
            running = next((each for each in active if each), None)
            if running is None:
                pending += took
            else:
                for event, times in running.items():
                    part = took * times / running.total()
                    spent.operations[event] = spent.operations.get(event, 0.0) + part
                spent.busy += took * running.total()
                spent.host, spent.unexplained = (
                    (spent.host, spent.unexplained + pending)
                    if seen
                    else (spent.host + pending, spent.unexplained)
                )
                seen, pending = True, 0.0
        if who == _WINDOW:
            spent.host += pending
            inside, seen, pending = change > 0, False, 0.0
            continue
        active[rank][who] += change
        if not active[rank][who]:
            del active[rank][who]
    return spent


def _within(trace: Trace, event: Event) -> bool:
    place = bisect.bisect_right(trace.windows, event.start, key=lambda window: window[0])
    return place > 0 and event.start < trace.windows[place - 1][1]


def _bounds(
    segments: Iterable[tuple[float, float, Event]], rank: Callable[[Event], int]
) -> Iterator[tuple[float, int, int, _Who]]:
    for start, end, event in segments:
        who = (event.name, event.module)
        yield start, 1, rank(event), who
        yield end, -1, rank(event), who


def _segments(events: Iterable[Event]) -> Iterator[tuple[float, float, Event]]:
    """The stretches of time in which an event is the innermost of its line."""
    lines: dict[int, list[Event]] = {}
    for event in events:
        lines.setdefault(event.line, []).append(event)
    for line in lines.values():
        stack: list[Event] = []
        at = 0.0
        for event in sorted(line, key=lambda event: (event.start, -event.end)):
            while stack and stack[-1].end <= event.start:
                done = stack.pop()
                if done.end > at:
                    yield at, done.end, done
                    at = done.end
            if stack and event.start > at:
                yield at, event.start, stack[-1]
            at = max(at, event.start)
            stack.append(event)
        while stack:
            done = stack.pop()
            if done.end > at:
                yield at, done.end, done
                at = done.end
