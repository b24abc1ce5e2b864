"""Dispatching steps: never waiting for the device between the places where someone must look."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from functorch_kit.train.guard import Guard
from functorch_kit.types import HParams

_SECONDS_A_DISPATCH = 0.25


def advance(
    stepper: Callable[..., Any],
    hparams: HParams,
    state: Any,
    first: int,
    last: int,
    *,
    every: Sequence[int],
    log: Callable[[int, Mapping[str, np.ndarray]], None],
    asked: Callable[[], bool] = lambda: False,
    guard: Guard | None = None,
    agreed: Callable[[int], int] = lambda steps: steps,
) -> Iterator[tuple[int, Any]]:
    """Take steps ``first`` to ``last``, pausing wherever someone must look at the state.

    Args:
        stepper: ``stepper(hparams, state, start, steps) -> (state, fetch)``, such as a ``Stepper``.
        hparams: the hyperparameters.
        state: the state at step ``first``; its buffers are donated.
        first: steps taken so far.
        last: step to end at.
        every: the pauses: at every multiple of each of these numbers, and at ``last``.
        log: told the first step and the metrics, each (steps,), of every dispatch, in order.
        asked: whether there is to be a pause at once, the last one.
        guard: finds the steps that failed; see ``Guard``. Where it does not go on behind them, the
            last pause is before such a step, and ``failed`` tells the log.
        agreed: what several processes make of the steps of the next dispatch, which each measures
            for itself: the same number in all of them.

    Yields:
        The step reached and the state at it. All metrics up to it have been logged.

    Example:
        >>> def stepper(hparams, state, start, steps):
        ...     return state + steps, lambda: {"step": np.arange(start, start + steps)}
        >>> list(advance(stepper, {}, 0, 0, 10, every=[4], log=lambda start, metrics: None))
        [(4, 4), (8, 8), (10, 10)]
    """
    pace, pending, step = _Pace(), deque(), first

    def is_due(step: int) -> bool:
        return step == last or any(step % number == 0 for number in every)

    ends = asked()
    while step < last and not ends:
        to_pause = min(last - step, *(number - step % number for number in every))
        count = agreed(min(pace.steps, to_pause))
        if guard:
            guard.before(step, state)
        state, fetch = stepper(hparams, state, step, count)
        pending.append((step, count, fetch, guard.after(state) if guard else True))
        step += count
        ends = asked()
        # While one dispatch runs, the one before it is fetched and logged.
        while len(pending) > (0 if ends or is_due(step) else 1):
            start, done, fetch, is_sound = pending.popleft()
            metrics = dict(fetch())
            is_sound = metrics.pop("is_sound", is_sound)
            pace.measured(done)
            if guard and (not is_sound or np.any(metrics.get("failed", 0))):
                pending.clear()  # what was dispatched since began in a state that is not sound
                step, state, metrics = guard.found(hparams, start, metrics)
                pace.restart(steps=1)
                ends = ends or "failed" in metrics
            elif guard:
                metrics = guard.passed(start + done, metrics)
            log(start, metrics)
            ends = ends or asked()
        if ends or is_due(step):
            yield step, state
            pace.restart()


class _Pace:
    """How many steps make a dispatch of about a quarter of a second."""

    def __init__(self) -> None:
        self.steps = 1
        self.restart()

    def restart(self, steps: int | None = None) -> None:
        self.steps = steps or self.steps
        self._mark = time.perf_counter()

    def measured(self, steps: int) -> None:
        now = time.perf_counter()
        seconds_a_step = max((now - self._mark) / steps, 1e-9)
        wanted = int(_SECONDS_A_DISPATCH / seconds_a_step)
        # The first measurement holds start-up costs, so it grows by leaps and not at once.
        self.steps = max(1, min(wanted, 8 * max(steps, self.steps)))
        self._mark = now
