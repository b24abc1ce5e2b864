"""Numbers as a person reads them: counts, bytes, durations and metrics."""

from __future__ import annotations

import math
from typing import Any

MISSING = "-"
"""Shown where a number is not known."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def as_number(value: Any) -> float | None:
    """A value as a float, or None where it is no number: the console must not fail over a metric.

    Args:
        value: anything; scalar arrays of NumPy and JAX count as numbers, booleans do not.

    Returns:
        The float, or None.

    Example:
        >>> as_number(2), as_number("fast"), as_number(None), as_number(True)
        (2.0, None, None, None)
    """
    if value is None or isinstance(value, (bool, str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def count(value: Any) -> str:
    """A count with three digits and a decimal prefix.

    Args:
        value: a number of things, or None.

    Returns:
        Such as ``12.3 M``; whole numbers below ten thousand are written out.

    Example:
        >>> count(9_216), count(12_345_678), count(None)
        ('9,216', '12.3 M', '-')
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        return MISSING
    if abs(number) < 10_000:
        return f"{number:,.0f}"
    return _prefixed(number)


def size(value: Any) -> str:
    """A number of bytes with a decimal prefix (1 kB is 1000 bytes).

    Args:
        value: bytes, or None.

    Returns:
        Such as ``4.52 MB``.

    Example:
        >>> size(512), size(4_520_000), size(None)
        ('512 B', '4.52 MB', '-')
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        return MISSING
    if abs(number) < 1000:
        return f"{number:.0f} B"
    return f"{_prefixed(number)}B"


def duration(value: Any) -> str:
    """A time span in the unit that suits it.

    Args:
        value: seconds, or None.

    Returns:
        Such as ``499 µs``, ``1.24 s`` or ``2 min 05 s``.

    Example:
        >>> duration(0.000499), duration(1.239), duration(125), duration(7300)
        ('499 µs', '1.24 s', '2 min 05 s', '2 h 01 min')
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        return MISSING
    if abs(number) >= 59.95:
        minutes, seconds = divmod(round(number), 60)
        if minutes < 60:
            return f"{minutes} min {seconds:02d} s"
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if number == 0:
        return "0 s"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        if abs(number) * scale >= 0.9995 or unit == "ns":
            return f"{_three_digits(number * scale)} {unit}"
    return MISSING


def clock(seconds: float | int | None) -> str:
    """A remaining time as a clock reads it.

    Args:
        seconds: the time left, or None where it is not known yet.

    Returns:
        ``m:ss`` or ``h:mm:ss``.

    Example:
        >>> clock(65), clock(3600), clock(None)
        ('1:05', '1:00:00', '-:--')
    """
    if seconds is None or not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def is_share(name: str) -> bool:
    """Whether a metric of this name is a share of one, to be written in per cent.

    Args:
        name: the metric's name.

    Returns:
        True for accuracies and top-k shares.

    Example:
        >>> is_share("validation_accuracy"), is_share("top_5"), is_share("loss")
        (True, True, False)
    """
    return "accuracy" in name or name.startswith(("top_", "top5", "top1"))


def metric(name: str, value: Any) -> str:
    """A metric's value, the way its name asks for.

    Args:
        name: the metric's name; accuracies are written in per cent.
        value: its value, of any type.

    Returns:
        The text; what is no number is written as it stands.

    Example:
        >>> metric("accuracy", 0.98611), metric("loss", 0.04123), metric("learning_rate", 3e-4)
        ('98.61 %', '0.0412', '0.0003')
        >>> metric("loss", float("nan")), metric("loss", None)
        ('nan', '-')
    """
    number = as_number(value)
    if number is None:
        return MISSING if value is None else str(value)
    if not math.isfinite(number):
        return str(number)
    if is_share(name):
        return f"{100 * number:.2f} %"
    if number == 0 or not 0.001 <= abs(number) < 1000:
        return f"{number:.4g}"
    return f"{number:.4f}" if abs(number) < 10 else f"{number:.2f}"


def words(name: str) -> str:
    """A field's name as a label.

    Args:
        name: a name with underscores.

    Returns:
        The words.

    Example:
        >>> words("validation_loss")
        'validation loss'
    """
    return name.replace("_", " ")


def _prefixed(number: float) -> str:
    exponent = 0
    while abs(number) >= 999.5 and exponent < len(_PREFIXES) - 1:
        number, exponent = number / 1000, exponent + 1
    return f"{_three_digits(number)} {_PREFIXES[exponent]}"


def _three_digits(number: float) -> str:
    magnitude = abs(number)
    if magnitude >= 99.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if magnitude >= 9.995 else f"{number:.2f}"
