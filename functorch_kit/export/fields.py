"""Single values of a manifest, each of the type and within the limits that it must have."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

_MOST_TEXT = 1000
_MOST_ENTRIES = 1 << 20
_MOST_NUMBER = 1 << 62
_SIDE = re.compile(r"[a-z_][\w+*() -]{0,99}")


class FieldError(ValueError):
    """A value that a manifest cannot have."""


def closed(values: Mapping[str, Any], known: set[str]) -> None:
    """Refuse a name that is not among those known.

    Example:
        >>> try:
        ...     closed({"a": 1, "run": 2}, {"a"})
        ... except FieldError as error:
        ...     print(error)
        'run' is no entry of it
    """
    for name in values:
        if name not in known:
            raise FieldError(f"{name[:60]!r} is no entry of it")


def text(values: Mapping[str, Any], name: str, *, printable: bool = True) -> str:
    """A text: short and printable, so that showing it does nothing to a terminal."""
    value = values.get(name)
    if not isinstance(value, str):
        raise _wrong(name, "no text")
    if printable and (len(value) > _MOST_TEXT or not value.isprintable()):
        raise _wrong(name, "no short, printable text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(name, "no text of whole characters")
    return value


def texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of such texts."""
    return tuple(text({name: entry}, name) for entry in entries(values, name, kind=None))


def numbers(values: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    found = entries(values, name, kind=None)
    for entry in found:
        if type(entry) not in (int, float) or abs(entry) > 1e300 or not math.isfinite(entry):
            raise _wrong(name, "no list of finite numbers")
    return tuple(float(entry) for entry in found)


def count(values: Mapping[str, Any], name: str) -> int:
    """A whole number from 0 up."""
    value = values.get(name)
    if type(value) is not int or not 0 <= value <= _MOST_NUMBER:
        raise _wrong(name, "no whole number from 0 up")
    return value


def choice(values: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """One of a few texts."""
    value = values.get(name)
    if not isinstance(value, str) or value not in choices:
        raise _wrong(name, f"none of {', '.join(filter(None, choices))}")
    return value


def day(values: Mapping[str, Any], name: str) -> str:
    """A day, such as 2026-11-21."""
    value = text(values, name)
    try:
        if len(value) != 10:
            raise ValueError
        datetime.date.fromisoformat(value)
    except ValueError:
        raise _wrong(name, "no day such as 2026-11-21") from None
    return value


def digest(values: Mapping[str, Any], name: str) -> str:
    """A SHA-256 in hexadecimal digits."""
    value = text(values, name)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise _wrong(name, "no SHA-256")
    return value


def names(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A list of names with values."""
    value = values.get(name)
    if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
        raise _wrong(name, "no list of names with values")
    return value


def entries(values: Mapping[str, Any], name: str, *, kind: type | None = dict) -> list[Any]:
    """A list, of dicts unless another kind, or none, is asked for."""
    value = values.get(name)
    if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
        raise _wrong(name, "no list")
    if kind is not None and not all(isinstance(entry, kind) for entry in value):
        raise _wrong(name, "no list of what it should be")
    return value


def side(value: Any, name: str) -> int | str:
    """One side of a shape: a whole number, or a word for any.

    Example:
        >>> side(8, "x"), side("batch", "x")
        (8, 'batch')
    """
    if type(value) is int and 0 <= value <= _MOST_NUMBER:
        return value
    if isinstance(value, str) and _SIDE.fullmatch(value):
        return value
    raise _wrong(name, "no shape")


def _wrong(name: str, what: str) -> FieldError:
    return FieldError(f"{name[:60]!r} is {what}")
