"""The comparison of a step's modes: a table, ``compare.json``, a bar chart, ``compare.html``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit.report.comparison_page import comparison_page
from functorch_kit.report.plots import PlotsError, bars
from functorch_kit.report.quantities import MISSING, as_number, count, duration, size
from functorch_kit.report.records import dumps
from functorch_kit.report.tables import Table, as_fields
from functorch_kit.report.terminal import Stream


def show_comparison(comparison: Any, *, stream: Stream | None = None) -> None:
    """Print what each variant costs and how far its numbers move: a row for each variant.

    Args:
        comparison: ``Comparison.to_dict()`` or the comparison itself; a variant that failed
            carries ``error`` instead of numbers. Rows of ``contenders`` make a table of their own.
        stream: where to; standard output if None.

    Example:
        >>> eager = {"name": "eager", "median_seconds": 0.004, "speedup": 1.0}
        >>> jit = {"name": "jit", "median_seconds": 0.0005, "speedup": 8.0, "red": True}
        >>> show_comparison({"flops": 2_000_000, "matmul_gflops": 100, "variants": [eager, jit]})
        2.00 M FLOPs per step; a matrix product reaches 100 GFLOP/s here
          variant  compile  first call  median step  95 % interval  speed-up
          eager          -           -      4.00 ms              -    1.00 ×
          jit            -           -       500 µs              -    8.00 ×
          variant  dispatch  of matmul  memory  difference  verdict
          eager           -          -       -           -       ok
          jit             -          -       -           -      RED
    """
    fields = as_fields(comparison)
    for table in comparison_tables(fields):
        table.show(stream or sys.stdout)


def comparison_tables(fields: Mapping[str, Any]) -> list[Table]:
    """The comparison as tables that fit a narrow terminal.

    Args:
        fields: see ``show_comparison``.

    Returns:
        Time; what else it costs, with failures and what is wrong with red rows as notes; other
        frameworks, where there are any.

    Example:
        >>> time, rest = comparison_tables({"variants": [{"name": "scan", "error": "no carry"}]})
        >>> rest.notes
        ['scan failed: no carry']
    """
    variants = _variants(fields)
    timed = ("variant", "compile", "first call", "median step", "95 % interval", "speed-up")
    others = ("variant", "dispatch", "of matmul", "memory", "difference", "verdict")
    tables = [
        Table(_title(fields), timed, [_times(each) for each in variants]),
        Table("", others, [_rest(each) for each in variants], _notes(variants)),
    ]
    if fields.get("contenders"):
        tables.append(contenders_table(fields["contenders"]))
    return tables


def contenders_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Our loop against those of other frameworks.

    Args:
        rows: with ``peer``, ``ours``, ``theirs``, ``unit``, ``ratio``, ``low``, ``high``, ``note``.

    Returns:
        The table; a contender that is not installed, or failed, is a row whose note says so.

    Example:
        >>> row = {"peer": "keras", "ours": 90.0, "theirs": 180.0, "unit": "µs/step",
        ...        "ratio": 0.5, "low": 0.4, "high": 0.6, "note": "fit"}
        >>> print(contenders_table([row]).plain())
        our loop against others, in processes of their own: time for time
          contender  ours  theirs  unit     ours / theirs  95 % interval
          keras      90    180     µs/step          0.500  0.400 – 0.600
          keras: fit
    """
    cells = [
        (
            str(row.get("peer", "")),
            _number(row.get("ours"), "{:.4g}"),
            _number(row.get("theirs"), "{:.4g}"),
            str(row.get("unit") or ""),
            _number(row.get("ratio"), "{:.3f}"),
            _between(row.get("low"), row.get("high"), lambda each: _number(each, "{:.3f}")),
        )
        for row in rows
    ]
    notes = [f"{row.get('peer')}: {row['note']}" for row in rows if row.get("note")]
    title = "our loop against others, in processes of their own: time for time"
    header = ("contender", "ours", "theirs", "unit", "ours / theirs", "95 % interval")
    return Table(title, header, cells, notes, left=4)


def write_comparison(folder: str | os.PathLike[str], comparison: Any) -> Path:
    """Write ``compare.json``, ``compare.html`` and, with matplotlib, ``compare.svg`` and ``.png``.

    The page shows ``layers.svg`` and links the texts that ``write_views`` has put there.

    Args:
        folder: where to; made if it is not there.
        comparison: see ``show_comparison``.

    Returns:
        The path of ``compare.html``.

    Example:
        >>> import tempfile
        >>> variants = [{"name": "jit", "median_seconds": 0.0005}]
        >>> write_comparison(tempfile.mkdtemp(), {"variants": variants}).name
        'compare.html'
    """
    fields = as_fields(comparison)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    text = dumps(fields, indent=2) + "\n"
    (target / "compare.json").write_text(text, encoding="utf-8")
    chart = _chart(_variants(fields), target / "compare.png")
    if chart:
        (target / "compare.svg").write_text(chart, encoding="utf-8")
    page = target / "compare.html"
    tables = comparison_tables(fields)
    page.write_text(comparison_page(target, fields, tables, chart), encoding="utf-8")
    return page


def _chart(variants: Sequence[Mapping[str, Any]], png: Path) -> str:
    timed = [v for v in variants if (as_number(v.get("median_seconds")) or 0) > 0]
    if not timed:
        return ""
    try:
        return bars(
            [str(v.get("name", "variant")) for v in timed],
            [float(v["median_seconds"]) for v in timed],
            low=[as_number(v.get("low_seconds")) for v in timed],
            high=[as_number(v.get("high_seconds")) for v in timed],
            texts=[_bar_text(v) for v in timed],
            label="time per step: median, 95 % interval",
            png=png,
        )
    except PlotsError as error:
        print(f"the chart is skipped: {error}", file=sys.stderr)
        return ""


def _times(variant: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(variant.get("name", "variant")),
        duration(variant.get("compile_seconds")),
        duration(variant.get("first_call_seconds")),
        duration(variant.get("median_seconds")),
        _between(variant.get("low_seconds"), variant.get("high_seconds"), duration),
        _number(variant.get("speedup"), "{:.2f} ×"),
    )


def _rest(variant: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(variant.get("name", "variant")),
        duration(variant.get("dispatch_seconds")),
        _percent(variant.get("matmul_share")),
        size(variant.get("peak_bytes")),
        _number(variant.get("max_relative_difference"), "{:.1e}"),
        "failed" if variant.get("error") else "RED" if variant.get("red") else "ok",
    )


def _variants(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [as_fields(variant) for variant in fields.get("variants", ())]


def _title(fields: Mapping[str, Any]) -> str:
    parts: list[str] = []
    if as_number(fields.get("flops")):
        parts.append(f"{count(fields['flops'])} FLOPs per step")
    if as_number(fields.get("matmul_gflops")):
        parts.append(f"a matrix product reaches {fields['matmul_gflops']:.3g} GFLOP/s here")
    return "; ".join(parts)


def _notes(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    notes: list[str] = []
    for variant in variants:
        name = variant.get("name", "variant")
        if variant.get("error"):
            notes.append(f"{name} failed: {str(variant['error']).strip().splitlines()[0]}")
        notes += [f"{name} is red: {fault}" for fault in variant.get("faults") or ()]
        if variant.get("diverges_at") is not None:
            where = f"{variant['diverges_at']}, at step {variant.get('diverges_at_step')}"
            notes.append(f"{name} first has another output in {where}")
    return notes


def _between(low: Any, high: Any, form: Any) -> str:
    if as_number(low) is None or as_number(high) is None:
        return MISSING
    return f"{form(low)} – {form(high)}"


def _number(value: Any, form: str) -> str:
    if isinstance(value, str):  # how JSON spells what is not finite
        return value
    number = as_number(value)
    return MISSING if number is None else form.format(number)


def _percent(value: Any) -> str:
    number = as_number(value)
    return MISSING if number is None else f"{100 * number:.1f} %"


def _bar_text(variant: Mapping[str, Any]) -> str:
    speedup = as_number(variant.get("speedup"))
    time = duration(variant.get("median_seconds"))
    return time if speedup is None else f"{time} · {speedup:.3g} ×"
