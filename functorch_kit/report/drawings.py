"""Drawings that stretch with the page: lines in an SVG without a size, labels as text beside it.

An SVG with text in it shrinks on a phone until nobody can read it; here only the lines stretch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from functorch_kit.report.markup import escape
from functorch_kit.report.scales import Scale

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


def marks(places: Iterable[tuple[float, float]], titles: Iterable[str], classes: str) -> str:
    """A mark at each point, which keeps its form whatever the drawing is stretched to.

    Args:
        places: see ``points``.
        titles: what is shown where the mouse rests on each.
        classes: of the page's style: the form is that of the ends of a line without a length.

    Returns:
        SVG.

    Example:
        >>> marks([(0.5, 1)], ["step 5: 0.1"], "mark")
        '<path class="mark" d="M500 0h0"><title>step 5: 0.1</title></path>'
    """
    return "".join(
        f'<path class="{classes}" d="M{points([place]).replace(",", " ")}h0">'
        f"<title>{escape(title)}</title></path>"
        for place, title in zip(places, titles, strict=True)
    )


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
        '<span class="tick before" style="left:0%;top:0%" aria-hidden="true">0.1</span>'
    """
    place = f"left:{_percent(left)};top:{_percent(1 - bottom)}"
    return f'<span class="tick {kind}" style="{place}" aria-hidden="true">{escape(text)}</span>'


def key(classes: str, mark: str = "") -> str:
    """A piece of a line, for a legend.

    Args:
        classes: of the line, as in the drawing.
        mark: classes of the marks on it; empty for none.

    Returns:
        HTML.

    Example:
        >>> key("c0").count("path"), key("c0", "mark").count("path")
        (1, 2)
    """
    dot = f'<path class="{mark}" d="M18 4h0"/>' if mark else ""
    return (
        f'<svg class="key" viewBox="0 0 36 8" aria-hidden="true"><path class="{classes}" '
        f'd="M0 4H36"/>{dot}</svg>'
    )


def step_chart(lines: str, label: str, upwards: Scale, across: Scale) -> str:
    """Lines over the steps of a run, with both axes.

    Args:
        lines: SVG, such as ``polyline``.
        label: what a screen reader says.
        upwards: the axis of what is drawn.
        across: see ``scales.step_scale``.

    Returns:
        HTML.

    Example:
        >>> from functorch_kit.report.scales import curve_scale, step_scale
        >>> drawn = polyline([(0, 0), (1, 1)], "c0")
        >>> html = step_chart(drawn, "loss", curve_scale("loss", 0.0, 1.0), step_scale(50))
        >>> ">0.4</span>" in html, ">50</span>" in html
        (True, True)
    """
    rules = "".join(polyline([(0, place), (1, place)], "rule") for place, _ in upwards.ticks)
    floor = polyline([(0, 0), (1, 0)], "axis")
    inner = lines_svg(rules + floor + lines, label)
    inner += "".join(tick(text, 0.0, place, "before") for place, text in upwards.ticks)
    inner += "".join(tick(text, place, 0.0, "under") for place, text in across.ticks)
    return f'<div class="field curves">{inner}</div><p class="axis-name under">step</p>'


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
