"""What the lecture's measurements leave in a folder: a picture as SVG and PNG, and the numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from functorch_kit.report import plots

# Okabe and Ito's colours, each with a mark of its own, so that no one needs to tell colours apart.
_LOOKS = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
)


class Panel(NamedTuple):
    """One drawing.

    Attributes:
        title: above it.
        across: what its horizontal axis shows.
        up: what its vertical axis shows.
        lines: name -> points, numbers across and up.
        is_log: whether both axes are logarithmic.
    """

    title: str
    across: str
    up: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    is_log: bool = True


def add_folder(parser: argparse.ArgumentParser, name: str) -> None:
    """The option that says where pictures go."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs") / f"lecture-{name}",
        metavar="FOLDER",
        help="where picture and numbers are written (%(default)s)",
    )


def leave(folder: Path, name: str, panels: Sequence[Panel], numbers: Any) -> str:
    """Write ``<name>.svg``, ``<name>.png`` and ``<name>.json``; returns where the picture is."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    folder.mkdir(parents=True, exist_ok=True)
    with plots.drawing(5.2 * columns, 4.2 * rows) as figure:
        from matplotlib.ticker import LogLocator  # it is there, or drawing would have said so

        for place, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, place)
            for number, (label, (across, up)) in enumerate(panel.lines.items()):
                colour, mark = _LOOKS[number % len(_LOOKS)]
                is_long = len(across) > 40
                axes.plot(
                    across, up, color=colour, label=label, markersize=4, marker=mark,
                    markevery=max(1, len(across) // 12) if is_long else 1,
                )  # fmt: skip
            if panel.is_log:
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_minor_formatter(lambda *_: "")
            axes.set_title(panel.title, loc="left", fontsize=9.5)
            axes.set_xlabel(panel.across)
            axes.set_ylabel(panel.up)
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16))
        svg = plots.as_svg(figure, folder / f"{name}.png", face="white")
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
    return str(folder / f"{name}.svg")
