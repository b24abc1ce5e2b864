"""When to stop early, and where a run is heading: plain functions of the validation rows so far."""

from __future__ import annotations

import itertools
import math
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


def trend(
    rows: Rows,
    *,
    metric: str = "loss",
    mode: str = "min",
    window: int = 5,
    min_change: float = 0.01,
) -> str | None:
    """Where a metric is heading, in words: a plateau, a divergence, or None while it improves.

    Args:
        rows: validation rows, in order.
        metric: name in the rows.
        mode: ``"min"`` or ``"max"``, which way is better.
        window: evaluations without improvement that make a plateau.
        min_change: improvement that counts, as a share of the best so far.

    Returns:
        ``"plateau since step n"``, n being the last improvement; ``"diverging since step n"`` where
        the metric got worse at each of the last ``window`` evaluations and has lost half of what it
        had gained since the first one; or None.

    Example:
        >>> rows = [{"step": 10 * i, "loss": 1 / i} for i in range(1, 8)]
        >>> trend(rows), trend([*rows, *({**rows[-1], "step": 70 + i} for i in range(1, 6))])
        (None, 'plateau since step 70')
        >>> trend([*rows, *({"step": 70 + i, "loss": i / 5} for i in range(1, 6))])
        'diverging since step 70'
    """
    sign = 1.0 if mode == "min" else -1.0
    values = [sign * row[metric] for row in rows]
    if len(values) <= window:
        return None
    best, best_at = values[0], 0
    for index, value in enumerate(values):
        if value < best - min_change * abs(best) or math.isnan(best):
            best, best_at = value, index
    if len(values) - 1 - best_at < window:
        return None
    last = values[-window - 1 :]
    worsens = all(later > earlier for earlier, later in itertools.pairwise(last))
    lost_half = values[-1] - best > (values[0] - best) / 2
    kind = "diverging" if worsens and lost_half else "plateau"
    since = len(values) - 1 - window if kind == "diverging" else best_at
    return f"{kind} since step {rows[since]['step']}"
