"""Successive halving: most jobs of a sweep end early, the best go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functorch_kit.errors import UserError

Rows = Sequence[dict[str, Any]]


class SuccessiveHalving:
    """At each rung, only the best share of the jobs that have come there goes on.

    A job is compared with all that have reached the rung so far (asynchronous successive halving,
    Li et al., 2020), so it does not matter how many run at a time; lanes of one chunk reach it
    together. A rung's value is that of the first evaluation at or after its step.

    Args:
        first: step of the first rung; each next one is ``factor`` times as far.
        factor: one in so many goes on, at least one.
        metric: name in the validation rows.
        mode: ``"min"`` or ``"max"``, which way is better.

    Raises:
        UserError: another mode, or numbers that cannot be used.

    Example:
        >>> halving = SuccessiveHalving(10, factor=2)
        >>> rows = {job: [{"step": 10, "loss": loss}] for job, loss in enumerate([1.0, 3.0, 2.0])}
        >>> for job, told in rows.items():
        ...     halving.tell(job, told)
        >>> [halving.ends(job, told) for job, told in rows.items()]
        [False, True, True]
    """

    def __init__(self, first: int, factor: int = 3, metric: str = "loss", mode: str = "min"):
        if first < 1 or factor < 2:
            raise UserError(f"halving: first is {first} and factor {factor}: give 1 or more and 2")
        if mode not in ("min", "max"):
            raise UserError(f"halving: mode {mode!r} is not 'min' or 'max'")
        self.first, self.factor, self.metric = first, factor, metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._rungs: list[dict[int, float]] = []

    def tell(self, job: int, rows: Rows) -> None:
        """Put a job's validation rows on record."""
        for number, value in enumerate(self._values(rows)):
            if number == len(self._rungs):
                self._rungs.append({})
            self._rungs[number][job] = value

    def ends(self, job: int, rows: Rows) -> bool:
        """Whether a job, whose rows are put on record, ends at the rung that it reached last."""
        self.tell(job, rows)
        reached = len(self._values(rows))
        if not reached:
            return False
        rung = self._rungs[reached - 1]
        go_on = max(1, len(rung) // self.factor)
        # The same values in the same order, whoever came first: ties are broken by the number.
        ranked = sorted(rung, key=lambda other: (rung[other], other))
        return job not in ranked[:go_on]

    def _values(self, rows: Rows) -> list[float]:
        found: list[float] = []
        step = self.first
        for row in rows:
            if row["step"] < step:
                continue
            value = self._sign * row[self.metric]
            found.append(value if value == value else float("inf"))
            while step <= row["step"]:
                step *= self.factor
        return found
