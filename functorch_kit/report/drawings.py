"""Drawings that stretch with the page: lines in an SVG without a size, labels as text beside it.

An SVG with text in it shrinks on a phone until nobody can read it; here only the lines stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from functorch_kit.report.markup import escape

SHADES = 7
"""Shades from the worst to the best; their colours are in the page's style."""
_UNITS = 1000


def lines_svg(inner: str, label: str) -> str:
    """An SVG as large as what it stands in.

    Args:
        inner: elements whose coordinates are those of ``points``.
        label: what a screen reader says.

    Returns:
        HTML.

    Example:
        >>> lines_svg("<g/>", "three jobs").count("three jobs")
        1
    """
    return (
        f'<svg class="lines" viewBox="0 0 {_UNITS} {_UNITS}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(label)}">{inner}</svg>'
    )


def points(places: Iterable[tuple[float, float]]) -> str:
    """Points as SVG has them.

    Args:
        places: from the left and from the bottom, each from 0 to 1.

    Returns:
        Whole numbers up to a thousand.

    Example:
        >>> points([(0.0, 0.0), (0.5, 1.0)])
        '0,1000 500,0'
    """
    return " ".join(f"{round(_UNITS * x)},{round(_UNITS * (1 - y))}" for x, y in places)


def polyline(places: Iterable[tuple[float, float]], classes: str, title: str = "") -> str:
    """A line through points.

    Args:
        places: see ``points``.
        classes: of the page's style.
        title: what is shown where the mouse rests on it.

    Returns:
        SVG.

    Example:
        >>> polyline([(0, 0), (1, 1)], "rule")
        '<polyline class="rule" points="0,1000 1000,0"/>'
    """
    head = f'<polyline class="{classes}" points="{points(places)}"'
    return f"{head}><title>{escape(title)}</title></polyline>" if title else f"{head}/>"


def tick(text: str, left: float, bottom: float, kind: str) -> str:
    """A label at a place of a drawing.

    Args:
        text: the label.
        left: from 0 to 1.
        bottom: likewise.
        kind: ``before``, ``after`` or ``under`` the place.

    Returns:
        HTML.

    Example:
        >>> tick("0.1", 0.0, 1.0, "before")
        '<span class="tick before" style="left:0%;top:0%">0.1</span>'
    """
    place = f"left:{_percent(left)};top:{_percent(1 - bottom)}"
    return f'<span class="tick {kind}" style="{place}">{escape(text)}</span>'


def shade(rank: int, count: int) -> int:
    """The shade of a job by its rank: each shade holds as many jobs as any other.

    Args:
        rank: how many jobs are better.
        count: how many there are.

    Returns:
        From 0, the worst, to ``SHADES - 1``, the best.

    Example:
        >>> [shade(rank, 3) for rank in range(3)]
        [6, 3, 0]
    """
    return round((SHADES - 1) * (1 - rank / max(count - 1, 1)))


def evenly_chosen(items: Sequence, count: int) -> list:
    """At most so many of the items, at even distances, the first and the last among them.

    Args:
        items: in their order.
        count: how many at most.

    Example:
        >>> evenly_chosen(range(101), 3)
        [0, 50, 100]
    """
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[:count])
    return [items[round(n * (len(items) - 1) / (count - 1))] for n in range(count)]


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
