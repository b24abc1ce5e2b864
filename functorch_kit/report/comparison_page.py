"""``compare.html``: one page that holds a whole comparison and loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit.report.markup import document, escape, facts, inline_svg, section, table
from functorch_kit.report.quantities import as_number
from functorch_kit.report.tables import Table, as_fields


def comparison_page(
    folder: Path, fields: Mapping[str, Any], tables: Sequence[Table], chart: str
) -> str:
    """The page.

    Args:
        folder: where it will lie; ``layers.svg`` in it is shown, ``*.txt`` are linked.
        fields: ``Comparison.to_dict()``.
        tables: what the console shows.
        chart: SVG text; empty without matplotlib.

    Returns:
        HTML.

    Example:
        >>> row = {"name": "<jit>", "red": True}
        >>> page = comparison_page(Path("nowhere"), {"variants": [row]}, [], "")
        >>> "&lt;jit&gt;" in page, "<jit>" in page
        (True, False)
    """
    variants = [as_fields(each) for each in fields.get("variants", ())]
    layers = _text(folder / "layers.svg")
    drawn = inline_svg(chart, "time per step of each variant", "t") if chart else ""
    graph = inline_svg(layers, "the model's layers", "l") if layers else ""
    body = "".join(
        (
            _header(folder.resolve().name, variants),
            section("Time", f'<div class="chart">{drawn}</div>' if drawn else ""),
            section("Cost", *map(_table, tables)),
            section("How far the numbers move", _differences(fields, variants)),
            section("Layers", f'<div class="chart">{graph}</div>' if graph else ""),
            section("Program", _links(folder)),
            section("Measured on", facts(as_fields(fields.get("environment") or {}))),
        )
    )
    return document(folder.resolve().name, body, "compare.json in the same folder")


def _header(name: str, variants: Sequence[Mapping[str, Any]]) -> str:
    red = [str(each.get("name")) for each in variants if each.get("red") or each.get("error")]
    state = "broken" if red else "finished"
    said = f"red: {', '.join(red)}" if red else f"all {len(variants)} agree"
    return (
        f'<header><div><p class="over">functorch_kit comparison</p><h1>{escape(name)}</h1>'
        f'<p class="status {state}">{escape(said)}</p></div></header>\n'
    )


def _table(shown: Table) -> str:
    head = f'<p class="note">{escape(shown.title)}</p>' if shown.title else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in shown.notes)
    return head + table(shown.header, shown.rows) + notes


def _differences(fields: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> str:
    compared = [each for each in variants if each.get("compared_with") is not None]
    if not compared:
        return ""
    header = (
        "variant", "compared with", "after steps", "largest difference", "furthest leaf", "it is",
        "allowed", "first other layer",
    )  # fmt: skip
    rows = [
        (
            str(each.get("name")),
            str(each.get("compared_with")),
            str(each.get("compared_steps")),
            _plain(each.get("max_relative_difference")),
            str(each.get("worst_leaf") or "–"),
            _plain(each.get("leaf_difference")),
            _plain(each.get("tolerance")),
            _layer(each),
        )
        for each in compared
    ]
    rounding = as_fields(fields.get("rounding") or {})
    moved = ", ".join(f"{_plain(value)} to {dtype}" for dtype, value in rounding.items())
    note = (
        "Differences are in units of a leaf's largest absolute value. Allowed is what the order of"
        " operations makes in the dtype, or ten times what rounding the arguments once moves the"
        " leaf by."
    )
    note += f" At most, one rounding moves a leaf by: {moved}." if moved else ""
    return table(header, rows) + f'<p class="note">{escape(note)}</p>'


def _layer(variant: Mapping[str, Any]) -> str:
    if variant.get("diverges_at") is None:
        return "–"
    return f"{variant['diverges_at']} (step {variant.get('diverges_at_step')})"


def _links(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.txt"))
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in files)
    return f'<p class="note">As text, beside this page: {links}.</p>' if links else ""


def _plain(value: Any) -> str:
    number = as_number(value)
    if number is None:
        return "–" if value is None else str(value)
    return f"{number:.1e}" if number else "0"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
