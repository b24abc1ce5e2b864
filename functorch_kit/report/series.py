"""Metrics over the steps as they are drawn: one series for each split, smoothed and thinned out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from functorch_kit.report.quantities import as_number

_ORDER = {"train": 0, "validation": 1, "test": 2}


class Series(NamedTuple):
    """A metric of one split.

    Attributes:
        steps: (N,), as they were logged.
        values: (N,), NaN where a value is not finite.
    """

    steps: np.ndarray
    values: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """The values that are."""
        return self.values[np.isfinite(self.values)]

    @property
    def is_noisy(self) -> bool:
        """Whether it keeps turning around; a schedule of learning rates does not."""
        turns = np.diff(np.sign(np.diff(self.finite)))
        return bool(np.count_nonzero(turns) > 0.1 * self.values.size)

    def thinned(self, most: int) -> Series:
        """At most about so many points: the smallest and the largest of each stretch.

        Example:
            >>> Series(np.arange(4.0), np.array([1.0, 9.0, 3.0, 2.0])).thinned(2).values.tolist()
            [1.0, 9.0]
        """
        if self.steps.size <= most:
            return self
        edges = np.linspace(0, self.steps.size, most // 2 + 1).astype(int)
        lost = np.isnan(self.values)
        low, high = np.where(lost, np.inf, self.values), np.where(lost, -np.inf, self.values)
        chosen = {
            int(first + place(values[first:end]))
            for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
            for place, values in ((np.argmin, low), (np.argmax, high))
        }
        index = np.asarray(sorted(chosen))
        return Series(self.steps[index], self.values[index])


def series_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Series]]:
    """Everything in the rows that is a number.

    Args:
        rows: with ``step``, ``split`` and the metrics; what is no number is passed over.

    Returns:
        Metric -> split -> its series; metrics as they come, training before validation before test.

    Example:
        >>> rows = [{"step": 5, "split": "train", "loss": 0.5}, {"step": 9, "loss": math.inf}]
        >>> series_of(rows)["loss"]["train"].values.tolist()
        [0.5, nan]
    """
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in rows:
        step, split = as_number(row.get("step", 0)), str(row.get("split", "train"))
        if step is None:
            continue
        for name, value in row.items():
            number = value if type(value) is float else as_number(value)
            if number is None or name == "step":
                continue
            steps, values = found.setdefault(name, {}).setdefault(split, ([], []))
            steps.append(step)
            values.append(number if math.isfinite(number) else math.nan)
    return {
        name: {
            split: Series(*(np.asarray(each, np.float64) for each in splits[split]))
            for split in sorted(splits, key=lambda split: (_ORDER.get(split, 3), split))
        }
        for name, splits in found.items()
    }


def smooth(values: Any, window: float | int) -> np.ndarray:
    """An exponential mean over both directions, which does not lag behind as a running one does.

    Values that are not finite are stepped over.

    Args:
        values: shape (N,).
        window: the number of values that a mean is taken over, roughly; from 1 up.

    Returns:
        float64 (N,); NaN only where no value is finite.

    Example:
        >>> smooth([4.0, 4.0, 4.0], window=10).tolist()
        [4.0, 4.0, 4.0]
        >>> smooth([1.0, 3.0], window=1).tolist()
        [1.0, 3.0]
        >>> smooth([0.0, 3.0, 6.0], window=2).tolist()[1]  # a straight line stays where it is
        3.0
    """
    keep = 1.0 - 1.0 / max(float(window), 1.0)
    values = np.asarray(values, np.float64)
    total, weight = _decayed(values, keep)
    later, later_weight = (sums[::-1] for sums in _decayed(values[::-1], keep))
    finite = np.isfinite(values)
    # Both directions hold the value itself: count it once.
    total = total + later - np.where(finite, values, 0.0)
    weight = weight + later_weight - finite
    return np.divide(total, weight, out=np.full(values.shape, math.nan), where=weight > 0)


def _decayed(values: np.ndarray, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the values so far and of their weights, both shrinking by ``keep`` at each place."""
    sums, weights = np.empty(values.size), np.empty(values.size)
    total, weight = 0.0, 0.0
    for place, value in enumerate(values.tolist()):
        total, weight = keep * total, keep * weight
        if math.isfinite(value):
            total, weight = total + value, weight + 1.0
        sums[place], weights[place] = total, weight
    return sums, weights
