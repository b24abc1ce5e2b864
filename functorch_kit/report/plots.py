"""Curves and bars as SVG text, drawn with matplotlib's object API.

pyplot is never imported: the figures need no window, and without it matplotlib loads faster.
Colours are Okabe and Ito's, which colour-blind readers tell apart. The same data gives the same
SVG, byte for byte.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functorch_kit.errors import UserError
from functorch_kit.report.quantities import as_number, duration, is_share, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Plain colours, so that a file on its own shows them in every viewer. The page turns exactly
# these strings into variables of its light and dark theme.
COLOURS = {
    "ink": "#1b1f24",
    "muted": "#5b6672",
    "rule": "#dfe4e8",
    "train": "#0072b2",
    "validation": "#d55e00",
    "test": "#009e73",
}
# A range beyond this is shown on a logarithmic axis.
_WIDE = 20.0
# More points than a chart has pixels make the file large and nothing clearer.
_POINTS = 600
_MARKED = 60
# Fewer rows than this are clearer as they are.
_SMOOTHED = 25

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "functorch_kit",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": COLOURS["ink"],
    "text.usetex": False,
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.0,
    "ytick.minor.width": 0.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


class PlotsError(UserError, ImportError):
    """matplotlib is not installed.

    Example:
        >>> issubclass(PlotsError, ImportError)
        True
    """


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


def curves(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    *,
    best_step: int | None = None,
    png: Path | None = None,
) -> str:
    """One metric over the steps: training smoothed with the raw values behind, the others marked.

    Args:
        rows: with ``step``, ``split`` and the metric; rows without the metric are passed over.
        name: the metric.
        best_step: a step to mark, or None.
        png: also write the picture there.

    Returns:
        SVG text.

    Raises:
        PlotsError: matplotlib is not installed.

    Example:
        >>> rows = [{"step": step, "split": "train", "loss": 1 / (1 + step)} for step in range(9)]
        >>> curves(rows, "loss").startswith("<svg")
        True
    """
    with drawing(4.6, 2.7) as figure:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        shown: list[np.ndarray] = []
        for split in _splits(rows):
            steps, values = _series(rows, name, split)
            if steps.size:
                shown.append(_draw_split(axes, split, steps, values))
        finite = np.concatenate([*shown, np.empty(0)])
        _scale(axes, name, finite[np.isfinite(finite)])
        if best_step is not None:
            axes.axvline(best_step, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 2)))
        axes.margins(x=0.02)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(
            MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if shown:
            axes.legend(
                loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=8.5, borderpad=0.0,
                handlelength=1.6, columnspacing=3.0, borderaxespad=0.4,
            )  # fmt: skip
        return as_svg(figure, png)


def bars(
    labels: Sequence[str],
    values: Sequence[float | int],
    *,
    low: Sequence[float | int | None] | None = None,
    high: Sequence[float | int | None] | None = None,
    texts: Sequence[str] | None = None,
    label: str = "",
    png: Path | None = None,
) -> str:
    """Horizontal bars for comparison, on a logarithmic axis where the range exceeds 20 times.

    Args:
        labels: a name for each bar.
        values: lengths of the bars, seconds.
        low: lower ends of the error bars; None where there is none.
        high: upper ends.
        texts: what to write at the end of each bar.
        label: of the axis.
        png: also write the picture there.

    Returns:
        SVG text.

    Raises:
        PlotsError: matplotlib is not installed.

    Example:
        >>> "eager" in bars(["eager", "jit"], [4e-3, 1e-4])
        True
    """
    with drawing(6.4, 0.75 + 0.38 * len(values)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(values))
        axes.barh(places, values, height=0.62, color=COLOURS["train"])
        for place, start, end in zip(places, low or (), high or (), strict=False):
            if start is not None and end is not None:
                axes.plot([start, end], [place, place], color=COLOURS["validation"], linewidth=2.2)
        ends = [max(value, (high or values)[i] or value) for i, value in enumerate(values)]
        wide = max(values) > _WIDE * min(values)
        if wide:
            axes.set_xscale("log")
            axes.set_xlim(min(values) / 3, max(ends) * (max(ends) / min(values) * 3) ** 0.45)
        else:
            axes.set_xlim(0, max(ends) * 1.35)
        for place, end, text in zip(places, ends, texts or (), strict=False):
            axes.annotate(text, (end, float(place)), (5, 0), textcoords="offset points",
                          va="center", fontsize=8.5)  # fmt: skip
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: duration(value) if value else "0")
        if wide:
            axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel(f"{label}, logarithmic" if label and wide else label)
        # A file of its own, which may be shown on any ground.
        return as_svg(figure, png, face="white")


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure in the report's style.

    Args:
        width: in inches.
        height: in inches.

    Raises:
        PlotsError: matplotlib is not installed.

    Example:
        >>> with drawing(2, 1) as figure:
        ...     as_svg(figure, None)[:4]
        '<svg'
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsError(
            "matplotlib is not installed: pip install 'functorch_kit[experiments]' brings it"
        ) from error
    # The first use on a machine says at length that it builds a font cache.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure, png: Path | None, face: str = "none") -> str:
    """A figure as SVG text, the same for the same data, and as a picture where ``png`` says."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    # Dates and creators would make two equal runs differ.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.set_facecolor(face)
    # The same bytes as `savefig`, which draws everything once more to find what it needs not know.
    FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
    if png is not None:
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _splits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    order = {"train": 0, "validation": 1, "test": 2}
    found = {str(row.get("split", "train")) for row in rows}
    return sorted(found, key=lambda split: (order.get(split, 3), split))


def _series(
    rows: Sequence[Mapping[str, Any]], name: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (row.get("step", 0), value)
        for row in rows
        if row.get("split", "train") == split and (value := as_number(row.get(name))) is not None
    ]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(steps, np.float64), np.asarray(values, np.float64)


def _draw_split(axes: Axes, split: str, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Draw one split; returns the values that the axis must show."""
    values = np.where(np.isfinite(values), values, np.nan)
    colour = COLOURS.get(split, COLOURS["ink"])
    if split == "train" and steps.size >= _SMOOTHED and _is_noisy(values):
        mean = smooth(values, window=max(2.0, steps.size / 50))
        axes.plot(*_thinned(steps, values), color=colour, alpha=0.28, linewidth=0.7)
        axes.plot(*_thinned(steps, mean), color=colour, label="train, smoothed")
        # A few spikes shall not flatten the rest: all but the most extreme raw values count.
        finite = values[np.isfinite(values)]
        inner = np.quantile(finite, [0.01, 0.98]) if finite.size else finite
        return np.concatenate([mean, inner])
    # Lines of different form, so that the splits differ in print and to every eye.
    markers: dict[str, Any] = {"marker": "o" if split != "test" else "D", "markersize": 3.2}
    if steps.size > _MARKED:
        steps, values = _thinned(steps, values)
        markers = {}
    axes.plot(steps, values, color=colour, label=split, linewidth=1.3, **markers)
    return values


def _is_noisy(values: np.ndarray) -> bool:
    """Whether a series keeps turning around; a schedule of learning rates does not."""
    turns = np.diff(np.sign(np.diff(values[np.isfinite(values)])))
    return bool(np.count_nonzero(turns) > 0.1 * values.size)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``_POINTS`` points: the smallest and the largest of each stretch."""
    if steps.size <= _POINTS:
        return steps, values
    stretches = np.array_split(np.arange(steps.size), _POINTS // 2)
    low, high = (
        np.where(np.isnan(values), np.inf, values),
        np.where(np.isnan(values), -np.inf, values),
    )
    chosen = {int(s[np.argmin(low[s])]) for s in stretches}
    chosen |= {int(s[np.argmax(high[s])]) for s in stretches}
    index = np.asarray(sorted(chosen))
    return steps[index], values[index]


def _scale(axes: Axes, name: str, shown: np.ndarray) -> None:
    if not shown.size:
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center")
        return
    low, high = float(shown.min()), float(shown.max())
    if is_share(name):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    if low > 0 and high > _WIDE * low and not is_share(name) and "rate" not in name:
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, high * 1.25)
        # Within three decades the decades alone would leave the axis almost without a number.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel(f"{words(name)}, logarithmic", labelpad=8)
        return
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    axes.set_ylim(low - room, high + room)
