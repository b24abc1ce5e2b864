"""When to stop early: plain functions of the validation rows so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]


def patience(
    evaluations: int, *, metric: str = "loss", mode: str = "min", min_change: float = 0.0
) -> Callable[[Rows], bool]:
    """Stop when a metric has not improved for a number of evaluations.

    A pure function of the logged rows, so that a resumed run stops where the other would have.

    Args:
        evaluations: how many evaluations without improvement are borne, from 1 up.
        metric: name in the validation rows.
        mode: ``"min"`` or ``"max"``, which way is better.
        min_change: how much better than the best an improvement has to be.

    Raises:
        ValueError: another mode, or less than one evaluation.

    Example:
        >>> stop = patience(2)
        >>> stop([{"loss": 3.0}, {"loss": 1.0}, {"loss": 2.0}])
        False
        >>> stop([{"loss": 3.0}, {"loss": 1.0}, {"loss": 2.0}, {"loss": 1.0}])
        True
    """
    if mode not in ("min", "max"):
        raise ValueError(f"patience: mode {mode!r} is not 'min' or 'max'")
    if evaluations < 1:
        raise ValueError(f"patience: {evaluations} evaluations: give a number from 1 up")
    sign = 1.0 if mode == "min" else -1.0

    def stop(rows: Rows) -> bool:
        best, best_at = float("inf"), -1
        for index, row in enumerate(rows):
            value = sign * row[metric]
            if value < best - min_change:  # never for NaN, so that a number after it is better
                best, best_at = value, index
        return len(rows) - 1 - best_at >= evaluations

    return stop
