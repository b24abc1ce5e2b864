"""Where a value lies on an axis: numbers on a linear or logarithmic scale, the rest beside them."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from functorch_kit.report.labels import by_size, short, value_text
from functorch_kit.report.quantities import as_number, is_share, metric

# Settings are chosen in steps of a factor; metrics merely spread.
_WIDE_SETTING, _WIDE_METRIC = 10.0, 20.0
_FEW = 8
_LABELS = 14
_LEAST_BETWEEN = 0.055
_BELOW, _MOST_BELOW = 0.13, 0.5
# How much further than what is drawn an axis goes: a share of its length, a factor on a logarithm.
_ROOM, _BESIDE, _AFTER = 0.06, 1.25, 1.02


@dataclasses.dataclass(frozen=True)
class Scale:
    """An axis from 0 to 1.

    Attributes:
        low: the smallest number on it.
        high: the largest.
        floor: where the numbers begin; below lies what is no number, or zero on a logarithm.
        is_log: whether numbers lie on it by their logarithm.
        falls: whether the smallest number is at the top.
        apart: text of what is no number -> its place.
        ticks: places and their labels.

    Example:
        >>> scale_of([1e-4, 1e-2, None]).at(1e-3)
        0.565
    """

    low: float
    high: float
    floor: float
    is_log: bool
    falls: bool
    apart: Mapping[str, float]
    ticks: tuple[tuple[float, str], ...] = ()

    def at(self, value: Any) -> float:
        """The place of a value.

        Args:
            value: one that the scale was made of, or a number; one beyond the ends lies on the end.

        Returns:
            A number from 0 to 1.
        """
        number = _finite(value)
        if number is None:
            return self.apart.get(value_text(value), 0.0)
        if self.apart and (text := _number_key(number)) in self.apart:
            return self.apart[text]
        return min(max(self.beyond(number), self.floor), 1.0)

    def beyond(self, number: float) -> float:
        """The place of a number, outside of the axis where it is smaller or larger than its ends.

        Args:
            number: finite.

        Returns:
            A number from -9 to 10: what is further away is not seen either.
        """
        if self.low == self.high:
            share = 0.5 if number == self.low else 9.0 if number > self.low else -9.0
        elif self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(number) - low) / (high - low) if number > 0 else -9.0
        else:
            # Halved first: the span of numbers near the largest float is none.
            share = (number / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        share = min(max(1.0 - share if self.falls else share, -9.0), 9.0)
        return self.floor + (1.0 - self.floor) * share


def scale_of(values: Iterable[Any], *, evenly: bool = False) -> Scale:
    """The axis of a setting.

    Args:
        values: all that occur. Numbers that span a decade lie by their logarithm, a zero among them
            apart; so does what is no number. Where there is no number, all lie at even distances.
        evenly: whether numbers, too, lie at even distances.

    Returns:
        The axis.

    Example:
        >>> scale_of([32, 64, 128]).ticks
        ((0.0, '32'), (0.3333333333333333, '64'), (1.0, '128'))
        >>> scale_of(["relu", "gelu"]).ticks
        ((0.0, 'gelu'), (1.0, 'relu'))
    """
    values = list(values)
    numbers = sorted({n for value in values if (n := _finite(value)) is not None})
    others = sorted({value_text(value) for value in values if _finite(value) is None}, key=by_size)
    if evenly or not numbers:
        return _evenly(numbers, others)
    positive = [number for number in numbers if number > 0]
    is_log = bool(positive) and numbers[0] >= 0 and _spans_decades(positive, _WIDE_SETTING)
    if is_log and numbers[0] == 0:
        others, numbers = [*others, _number_key(0.0)], positive
    return _made(numbers, others, is_log, falls=False, kind="")


def metric_scale(name: str, values: Sequence[float], mode: str, missing: str = "") -> Scale:
    """The axis of a metric, the better end at the top.

    Args:
        name: of the metric.
        values: the finite values.
        mode: ``"min"`` or ``"max"``.
        missing: label of the place below for those without a value; empty for none.

    Returns:
        The axis.

    Example:
        >>> scale = metric_scale("loss", [0.1, 0.3], "min")
        >>> scale.at(0.1), scale.at(0.3)
        (1.0, 0.0)
    """
    numbers = sorted(set(values)) or [0.0]
    is_log = numbers[0] > 0 and _spans_decades(numbers, _WIDE_METRIC) and not is_share(name)
    return _made(numbers, [missing] if missing else [], is_log, falls=mode == "min", kind=name)


def curve_scale(name: str, low: float, high: float) -> Scale:
    """The axis of a metric over the steps, with some room beyond its smallest and largest value.

    Args:
        name: of the metric.
        low: its smallest value, finite.
        high: its largest.

    Returns:
        The axis, small values below; logarithmic where the values span twenty times.

    Example:
        >>> [text for _, text in curve_scale("loss", 0.1, 3.0).ticks]
        ['0.1', '0.2', '0.5', '1', '2']
        >>> [text for _, text in curve_scale("accuracy", 0.5, 0.98).ticks]
        ['50 %', '60 %', '70 %', '80 %', '90 %', '100 %']
    """
    # A rate follows a schedule, whose form a logarithm would bend.
    is_linear = is_share(name) or "rate" in name
    is_log = low > 0 and high / low > _WIDE_METRIC and not is_linear
    if is_log:
        ends = low / _BESIDE, high * _BESIDE
    else:
        room = _ROOM * high - _ROOM * low or _ROOM * abs(high) or 0.5
        ends = low - room, high + room
    low, high = (min(max(end, -sys.float_info.max), sys.float_info.max) for end in ends)
    return _made([low, high], [], is_log, falls=False, kind=name or "value", ticks=7)


def step_scale(last: float) -> Scale:
    """The axis of the steps, from 0 on.

    Args:
        last: the last step that is drawn; a little room is left beyond it.

    Returns:
        The axis, its labels whole numbers.

    Example:
        >>> [text for _, text in step_scale(2000).ticks], [text for _, text in step_scale(1).ticks]
        (['0', '500', '1,000', '1,500', '2,000'], ['0', '1'])
    """
    end = _AFTER * last
    ticks = tuple(
        (place / _AFTER, f"{step:,.0f}")
        for place, _ in metric_scale("step", [0.0, last], "max").ticks
        if abs((step := place * last) - round(step)) < 1e-6 * max(step, 1.0)
    )
    return Scale(0.0, end, 0.0, False, False, {}, ticks)


def _evenly(numbers: Sequence[float], others: Sequence[str]) -> Scale:
    texts = [*others, *map(_number_key, numbers)]
    labels = [*map(short, others), *(_text(number) for number in numbers)]
    last = len(texts) - 1
    places = [place / last if last else 0.5 for place in range(len(texts))]
    every = -(-len(texts) // _LABELS)
    ticks = tuple(zip(places, labels, strict=True))[::every]
    return Scale(0.0, 0.0, 0.0, False, False, dict(zip(texts, places, strict=True)), ticks)


def _made(
    numbers: Sequence[float],
    others: Sequence[str],
    is_log: bool,
    *,
    falls: bool,
    kind: str,
    ticks: int = 5,
) -> Scale:
    """The axis; ``ticks`` is about how many labels the numbers have, ``kind`` their metric."""
    floor = min(_MOST_BELOW, _BELOW * len(others))
    places = [index * floor / len(others) for index in range(len(others))]
    apart = dict(zip(others, places, strict=True))
    scale = Scale(numbers[0], numbers[-1], floor, is_log, falls, apart)
    every = -(-len(others) // (_LABELS // 2)) or 1
    beside = [(place, short(text)) for text, place in apart.items()][::every]
    if len(numbers) <= _FEW and not kind:
        labels = [(number, _text(number)) for number in numbers]
    else:
        labels = _round_numbers(scale.low, scale.high, is_log, kind, ticks)
    kept: list[tuple[float, str]] = []
    for place, label in sorted((scale.at(number), label) for number, label in labels):
        if not kept or place - kept[-1][0] >= _LEAST_BETWEEN:
            kept.append((place, label))
    return dataclasses.replace(scale, ticks=(*beside, *kept))


def _round_numbers(
    low: float, high: float, is_log: bool, kind: str, count: int
) -> list[tuple[float, str]]:
    if low == high:
        return [(low, metric(kind, low) if kind else _text(low))]
    if is_log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for factors in ((1,), (1, 3), (1, 2, 5)):
            every = 1 if len(factors) > 1 else -(-(last - first + 1) // _FEW)
            found = [
                number
                for power in range(first, last + 1, every)
                for factor in factors
                # Not 10.0**power: its last digit is off where the power is large.
                if low <= (number := float(f"{factor}e{power}")) <= high
            ]
            if len(found) >= count - 2:
                break
        return [(number, _text(number)) for number in found or [low, high]]
    step = _step(low, high, count)
    if not (math.isfinite(step) and step > 0):
        return [(low, _text(low)), (high, _text(high))]
    first, last = math.ceil(low / step), math.floor(high / step)
    # In per cent where it is a share; with as many digits as tell one label from the next.
    factor, unit = (100.0, " %") if is_share(kind) else (1.0, "")
    digits = max(0, -math.floor(math.log10(step * factor) + 1e-9))
    if digits > 6 or max(abs(low), abs(high)) * factor >= 1e6:
        digits = None
    return [
        (place * step, _fixed(place * step * factor, digits) + unit)
        for place in range(first, last + 1)
    ]


def _spans_decades(numbers: Sequence[float], wide: float) -> bool:
    """Whether positive numbers, sorted, lie more evenly by their logarithm than by their size."""
    low, high, middle = numbers[0], numbers[-1], numbers[len(numbers) // 2]
    if not high / low >= wide:
        return False
    if len(numbers) < 3:
        return True
    by_number = (middle / 2 - low / 2) / (high / 2 - low / 2)
    by_log = (math.log(middle) - math.log(low)) / (math.log(high) - math.log(low))
    return abs(by_log - 0.5) < abs(by_number - 0.5)


def _step(low: float, high: float, count: int) -> float:
    rough = (high / count) - (low / count)
    if not (math.isfinite(rough) and rough > 0):
        return 0.0
    unit = 10.0 ** math.floor(math.log10(rough))
    return next((f * unit for f in (1, 2, 5) if f * unit >= rough), 10 * unit)


def _fixed(number: float, digits: int | None) -> str:
    return f"{number:.6g}" if digits is None else f"{number:.{digits}f}"


def _text(number: float) -> str:
    if number.is_integer() and abs(number) < 1e6:
        return f"{number:.0f}"
    return f"{number:.4g}"


def _number_key(number: float) -> str:
    return value_text(int(number) if number.is_integer() else number)


def _finite(value: Any) -> float | None:
    number = as_number(value)
    return number if number is not None and math.isfinite(number) else None
