"""The comparison of a program's modes: a table, ``compare.json`` and a bar chart."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit.report.plots import PlotsError, bars
from functorch_kit.report.quantities import MISSING, as_number, count, duration
from functorch_kit.report.records import dumps
from functorch_kit.report.tables import Table, as_fields
from functorch_kit.report.terminal import Stream


def show_comparison(comparison: Any, *, stream: Stream | None = None) -> None:
    """Print what each variant costs and how far its numbers move: a column for each variant.

    Args:
        comparison: ``Comparison.to_dict()`` or the comparison itself; a variant that failed
            carries ``error`` instead of numbers.
        stream: where to; standard output if None.

    Example:
        >>> eager = {"name": "eager", "median_seconds": 0.004, "speedup": 1.0, "max_difference": 0}
        >>> jit = {"name": "jit", "median_seconds": 0.0005, "speedup": 8.0, "matmul_share": 0.04}
        >>> show_comparison({"flops": 2_000_000, "matmul_gflops": 100, "variants": [eager, jit]})
        2.00 M FLOPs per step; a matrix product reaches 100 GFLOP/s here
                            eager     jit
          compile               -       -
          first call            -       -
          median step     4.00 ms  500 µs
          quartile 1            -       -
          quartile 3            -       -
          speed-up         1.00 ×  8.00 ×
          GFLOP/s               -       -
          of matmul             -   4.0 %
          max difference        0       -
          relative              -       -
    """
    fields = as_fields(comparison)
    comparison_table(fields).show(stream or sys.stdout)


def comparison_table(fields: Mapping[str, Any]) -> Table:
    """The comparison as a table.

    Args:
        fields: see ``show_comparison``.

    Returns:
        The table, with the failures and the worst leaves as notes.

    Example:
        >>> comparison_table({"variants": [{"name": "scan", "error": "no carry"}]}).notes
        ['scan failed: no carry']
    """
    variants = _variants(fields)
    kinds = (
        ("compile", lambda v: duration(v.get("compile_seconds"))),
        ("first call", lambda v: duration(v.get("first_call_seconds"))),
        ("median step", lambda v: duration(v.get("median_seconds"))),
        ("quartile 1", lambda v: duration(v.get("q25_seconds"))),
        ("quartile 3", lambda v: duration(v.get("q75_seconds"))),
        ("speed-up", lambda v: _number(v.get("speedup"), "{:.2f} ×")),
        ("GFLOP/s", lambda v: _number(v.get("gflops"), "{:.2f}")),
        ("of matmul", lambda v: _percent(v.get("matmul_share"))),
        ("max difference", lambda v: _number(v.get("max_difference"), "{:.2g}")),
        ("relative", lambda v: _number(v.get("max_relative_difference"), "{:.2g}")),
    )
    header = ("", *(str(variant.get("name", "variant")) for variant in variants))
    rows = [
        (label, *("failed" if v.get("error") and not i else text(v) for v in variants))
        for i, (label, text) in enumerate(kinds)
    ]
    notes = _notes(variants) + [f"warning: {line}" for line in fields.get("warnings") or ()]
    return Table(_title(fields), header, rows, notes)


def write_comparison(folder: str | os.PathLike[str], comparison: Any) -> Path:
    """Write ``compare.json`` and, where matplotlib is installed, ``compare.svg`` and ``.png``.

    Args:
        folder: where to; made if it is not there.
        comparison: see ``show_comparison``.

    Returns:
        The path of ``compare.json``.

    Example:
        >>> import tempfile
        >>> variants = [{"name": "jit", "median_seconds": 0.0005}]
        >>> write_comparison(tempfile.mkdtemp(), {"variants": variants}).name
        'compare.json'
    """
    fields = as_fields(comparison)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "compare.json"
    path.write_text(dumps(fields, indent=2) + "\n", encoding="utf-8")
    timed = [v for v in _variants(fields) if (as_number(v.get("median_seconds")) or 0) > 0]
    if not timed:
        return path
    try:
        chart = bars(
            [str(v.get("name", "variant")) for v in timed],
            [float(v["median_seconds"]) for v in timed],
            low=[as_number(v.get("q25_seconds")) for v in timed],
            high=[as_number(v.get("q75_seconds")) for v in timed],
            texts=[_bar_text(v) for v in timed],
            label="time per step: median, quartiles",
            png=target / "compare.png",
        )
    except PlotsError as error:
        print(f"the chart is skipped: {error}", file=sys.stderr)
        return path
    (target / "compare.svg").write_text(chart, encoding="utf-8")
    return path


def _variants(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [as_fields(variant) for variant in fields.get("variants", ())]


def _title(fields: Mapping[str, Any]) -> str:
    parts = []
    if as_number(fields.get("flops")):
        parts.append(f"{count(fields['flops'])} FLOPs per step")
    if as_number(fields.get("matmul_gflops")):
        parts.append(f"a matrix product reaches {fields['matmul_gflops']:.3g} GFLOP/s here")
    return "; ".join(parts)


def _notes(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for variant in variants:
        name = variant.get("name", "variant")
        if variant.get("error"):
            notes.append(f"{name} failed: {str(variant['error']).strip().splitlines()[0]}")
        elif variant.get("worst_leaf") and variant.get("max_difference"):
            beyond = ", beyond the tolerance" if variant.get("agrees") is False else ""
            notes.append(f"{name} differs most in {variant['worst_leaf']}{beyond}")
    return notes


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
