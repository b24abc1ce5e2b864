"""The roofline of programs: what bounds them, drawn, written and said."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit.report.plots import COLOURS, PlotsError, as_svg, drawing
from functorch_kit.report.quantities import MISSING, as_number, count, duration, size
from functorch_kit.report.records import dumps
from functorch_kit.report.tables import Table, as_fields
from functorch_kit.report.terminal import Stream

_POINTS = ("validation", "test", "ink", "muted")


def show_roofline(roofline: Any, *, stream: Stream | None = None) -> None:
    """Print how fast a program is, how fast it could be, and what bounds it.

    Args:
        roofline: a ``program.Roofline`` or its dict.
        stream: where to; standard output if None.

    Example:
        >>> measured = {"matmul_flops": 100e9, "copy_bytes": 20e9}
        >>> used = {"flops_per_second": 5e9, "of_matmul": 0.05}
        >>> show_roofline({"measured": measured, "utilization": used, "intensity": 2.5,
        ...                "ridge": 5.0, "bound": "memory", "of_attainable": 0.1})
          roofline
          FLOPs per step                         -
          bytes per step                         -
          time per step                          -
          rate                       5.00 GFLOP/s
          matrix product, measured    100 GFLOP/s
          of it                             5.0 %
          vendor's figure                        -
          of it (MFU)                            -
          copy, measured                20.0 GB/s
          FLOPs per byte                      2.5
          bound from 5 on              arithmetic
          bound here                       memory
          of the roof there                10.0 %
    """
    roofline_table(as_fields(roofline)).show(stream or sys.stdout)


def roofline_table(fields: Mapping[str, Any]) -> Table:
    """The numbers of a roofline as a table.

    Args:
        fields: ``Roofline.to_dict()``.

    Returns:
        The table, its warnings as notes.

    Example:
        >>> roofline_table({"warnings": ["too fast"]}).notes
        ['warning: too fast']
    """
    measured, used = (
        as_fields(fields.get("measured") or {}),
        as_fields(fields.get("utilization") or {}),
    )
    rows = (
        ("FLOPs per step", count(fields.get("flops"))),
        ("bytes per step", size(fields.get("bytes"))),
        ("time per step", duration(fields.get("seconds"))),
        ("rate", _rate(used.get("flops_per_second"), "FLOP/s")),
        ("matrix product, measured", _rate(measured.get("matmul_flops"), "FLOP/s")),
        ("of it", _percent(used.get("of_matmul"))),
        ("vendor's figure", _rate(measured.get("peak_flops"), "FLOP/s")),
        ("of it (MFU)", _percent(used.get("of_peak"))),
        ("copy, measured", _rate(measured.get("copy_bytes"), "B/s")),
        ("FLOPs per byte", _plain(fields.get("intensity"))),
        (f"bound from {_plain(fields.get('ridge'))} on", "arithmetic"),
        ("bound here", str(fields.get("bound") or MISSING)),
        ("of the roof there", _percent(fields.get("of_attainable"))),
    )
    notes = [f"warning: {line}" for line in fields.get("warnings") or ()]
    return Table("", ("roofline", ""), rows, notes)


def roofline_chart(rooflines: Any, *, png: Path | None = None) -> str:
    """Rate over arithmetic intensity, both logarithmic, under the roof of the measured ceilings.

    Args:
        rooflines: a ``program.Roofline`` or its dict, or several with the same ceilings.
        png: also write the picture there.

    Returns:
        SVG text.

    Raises:
        PlotsError: matplotlib is not installed.

    Example:
        >>> measured = {"matmul_flops": 100e9, "copy_bytes": 20e9, "peak_flops": None}
        >>> point = {"name": "step", "intensity": 2.0, "utilization": {"flops_per_second": 8e9}}
        >>> "step" in roofline_chart({**point, "measured": measured})
        True
    """
    several = rooflines if isinstance(rooflines, Sequence) else [rooflines]
    points = [as_fields(each) for each in several]
    measured = as_fields(points[0]["measured"])
    rate, copy = float(measured["matmul_flops"]), float(measured["copy_bytes"])
    peak, ridge = as_number(measured.get("peak_flops")), rate / copy
    at = [float(point["intensity"]) for point in points]
    reached = [float(as_fields(point["utilization"])["flops_per_second"]) for point in points]
    left, right = min([*at, ridge]) / 4, max([*at, ridge]) * 6
    with drawing(5.6, 3.4) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot([left, ridge, right], [left * copy, rate, rate], color=COLOURS["train"])
        axes.annotate(f"matrix product {_rate(rate, 'FLOP/s')}", (right, rate), (0, 4),
                      textcoords="offset points", ha="right", fontsize=8.5)  # fmt: skip
        axes.annotate(f"copy {_rate(copy, 'B/s')}", (left, left * copy), (4, -2),
                      textcoords="offset points", va="top", fontsize=8.5)  # fmt: skip
        if peak is not None:
            axes.axhline(peak, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 2)))
            axes.annotate(f"vendor's figure {_rate(peak, 'FLOP/s')}", (left, peak), (0, 4),
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
        for number, point in enumerate(points):
            colour = COLOURS[_POINTS[number % len(_POINTS)]]
            roof = min(rate, at[number] * copy)
            axes.plot([at[number]] * 2, sorted([reached[number], roof]), color=colour,
                      linewidth=0.8, linestyle=(0, (2, 2)))  # fmt: skip
            axes.plot(at[number], reached[number], "o", color=colour, markersize=6)
            text = f"{point.get('name', 'program')} {_rate(reached[number], 'FLOP/s')}"
            axes.annotate(text, (at[number], reached[number]), (7, -3),
                          textcoords="offset points", color=colour, fontsize=8.5)  # fmt: skip
        axes.set_xlim(left, right)
        axes.set_ylim(min([*reached, left * copy]) / 3, max([*reached, rate, peak or 0.0]) * 3)
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: _rate(value, "FLOP/s"))
        axes.minorticks_off()
        axes.set_xlabel("arithmetic intensity: FLOPs per byte, logarithmic")
        return as_svg(figure, png, face="white")


def write_roofline(folder: str | os.PathLike[str], roofline: Any) -> Path:
    """Write ``roofline.json`` and, where matplotlib is installed, ``roofline.svg`` and ``.png``.

    Args:
        folder: where to; made if it is not there.
        roofline: a ``program.Roofline`` or its dict.

    Returns:
        The path of ``roofline.json``.

    Example:
        >>> import tempfile
        >>> measured = {"matmul_flops": 100e9, "copy_bytes": 20e9, "peak_flops": None}
        >>> point = {"name": "step", "intensity": 2.0, "utilization": {"flops_per_second": 8e9}}
        >>> write_roofline(tempfile.mkdtemp(), {**point, "measured": measured}).name
        'roofline.json'
    """
    fields = as_fields(roofline)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "roofline.json"
    path.write_text(dumps(fields, indent=2) + "\n", encoding="utf-8")
    try:
        chart = roofline_chart(fields, png=target / "roofline.png")
    except PlotsError as error:
        print(f"the chart is skipped: {error}", file=sys.stderr)
        return path
    (target / "roofline.svg").write_text(chart, encoding="utf-8")
    return path


def _rate(value: Any, unit: str) -> str:
    text = size(value)
    return text if text == MISSING else text.removesuffix("B") + unit


def _percent(share: Any) -> str:
    number = as_number(share)
    return MISSING if number is None else f"{100 * number:.1f} %"


def _plain(value: Any) -> str:
    number = as_number(value)
    return MISSING if number is None else f"{number:.3g}"
