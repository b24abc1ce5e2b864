"""Pictures in files of their own, as SVG text, drawn with matplotlib's object API.

pyplot is never imported: the figures need no window, and without it matplotlib loads faster.
Colours are Okabe and Ito's, which colour-blind readers tell apart. The same data gives the same
SVG, byte for byte.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functorch_kit.errors import UserError
from functorch_kit.report.quantities import duration

if TYPE_CHECKING:
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
