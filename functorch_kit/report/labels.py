"""Values as labels: short, on one line, and in the order of the numbers in them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from functorch_kit.report.quantities import as_number

_NUMBER = re.compile(r"(\d+)")


def value_text(value: Any) -> str:
    """A setting's or a metric's value as text that can be read back.

    Args:
        value: a number, a string, a boolean, None, or a list or dict of these.

    Returns:
        Strings as they are, lists as JSON, numbers so that they parse back exactly.

    Example:
        >>> [value_text(value) for value in (1e-05, True, None, [64, 32], "a", float("nan"))]
        ['1e-05', 'true', 'null', '[64,32]', 'a', 'NaN']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def short(value: Any) -> str:
    """A setting's value as a label: a number with four digits, text with forty characters.

    Example:
        >>> short(0.000123456), short(10000), short("a" * 50)[-3:], short(None)
        ('0.0001235', '10000', 'aa…', 'null')
    """
    number = as_number(value)
    if number is not None and isinstance(value, float):
        return f"{number:.4g}"
    text = shown(value_text(value))
    return text if len(text) <= 40 else f"{text[:39]}…"


def shown(text: str) -> str:
    r"""Text without what a page cannot hold: on one line, and of a bearable length.

    Example:
        >>> shown("a\nb\x00"), len(shown("a" * 1000))
        ('a b�', 300)
    """
    text = "".join(each if each.isprintable() else "�" for each in " ".join(text.split()))
    return text if len(text) <= 300 else f"{text[:299]}…"


def by_size(text: str) -> tuple[list[tuple[bool, float, str]], str]:
    """A key that sorts text with numbers in it by these numbers.

    Example:
        >>> sorted(["[128]", "[64]", "[128,64]", "relu"], key=by_size)
        ['[64]', '[128]', '[128,64]', 'relu']
    """
    parts = _NUMBER.split(text.rstrip("]"))  # a list before a longer one
    return [(i % 2 == 1, float(p) if i % 2 else 0.0, p) for i, p in enumerate(parts)], text
