"""What is asked of a sweep as a whole, as far as its groups are concerned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from functorch_kit.lane import Stop
from functorch_kit.record import Row
from functorch_kit.sweep.halving import SuccessiveHalving
from functorch_kit.sweep.job import PRUNED, Job


@dataclasses.dataclass(frozen=True)
class Request:
    """See ``sweep.run``.

    Attributes:
        memory: bytes that a program may take on a device.
        devices: to split lanes over; none for the default one.
        halving: ends jobs early.
        compact: whether fewer lanes are worth another compilation.
        say: is told how far it is.
        signals: filled from outside when all are to stop.

    Example:
        >>> Request(1 << 30, (), None, False, print, []).compact
        False
    """

    memory: int
    devices: Sequence[Any]
    halving: SuccessiveHalving | None
    compact: bool
    say: Callable[[str], None]
    signals: list[Any]

    def stop(self, own: Stop | None, job: Job) -> Stop | None:
        """When a job ends early: by its own settings, or because others do better."""
        halving = self.halving
        if halving is None:
            return own

        def stopped(rows: list[Row]) -> bool | str:
            ends = halving.ends(job.number, rows)  # which also puts the rows on record
            return (own is not None and own(rows)) or (PRUNED if ends else False)

        return stopped

    def ended(self, job: Job) -> None:
        """Say how a job ended."""
        steps = job.summary.get("steps")
        self.say(f"job {job.number}: {job.status}" + (f" at step {steps}" if steps else ""))
