"""The graph of a model's layers as SVG, drawn from its summary by hand: no graph tool is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from functorch_kit.report.markup import escape
from functorch_kit.report.plots import COLOURS
from functorch_kit.report.quantities import as_number, count
from functorch_kit.report.tables import as_fields

_WIDTH, _BOX, _GAP, _INSET, _TITLE = 460, 40, 14, 14, 24
_MARGIN = 8
_LONGEST = 34


@dataclasses.dataclass
class _Part:
    """A node of the tree of parts.

    Attributes:
        name: last step of its path.
        row: its fields in the summary; None for a part that holds others.
        parts: those inside it, in order of execution.
        times: how many alike stand in a row here.
    """

    name: str
    row: Mapping[str, Any] | None = None
    parts: list[_Part] = dataclasses.field(default_factory=list)
    times: int = 1

    @property
    def height(self) -> int:
        """In pixels, with what is inside."""
        if not self.parts:
            return _BOX
        inside = sum(part.height for part in self.parts) + _GAP * (len(self.parts) - 1)
        return _TITLE + inside + _INSET

    def signature(self) -> tuple[Any, ...]:
        """Equal for parts that differ in their own name alone."""
        row = None if self.row is None else tuple(self.row[key] for key in ("output", "params"))
        return row, tuple((part.name, part.times, part.signature()) for part in self.parts)


def layer_graph(summary: Any) -> str:
    """Draw a model's parts in their order of execution, those of one part in a frame.

    Equal blocks in a row are drawn once, with their number. A bar shows a layer's operations beside
    those of the layer that has most.

    Args:
        summary: a ``program.Summary`` or its dict.

    Returns:
        SVG text.

    Example:
        >>> row = {"path": "blocks/0/mlp", "output": "float32[4,8]", "params": 72, "flops": 576}
        >>> drawing = layer_graph({"rows": [row]})
        >>> drawing.startswith("<svg"), ">mlp<" in drawing, ">blocks<" in drawing
        (True, True, True)
    """
    fields = as_fields(summary)
    rows = [as_fields(row) for row in fields.get("rows", ())]
    root = _Part("", parts=_folded(_tree(rows).parts))
    most = max((as_number(row.get("flops")) or 0.0 for row in rows), default=0.0) or 1.0
    height = root.height - _TITLE - _INSET + 2 * _MARGIN if root.parts else 2 * _MARGIN
    shapes = "".join(_flow(root.parts, _MARGIN, _MARGIN, _WIDTH - 2 * _MARGIN, most))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">'
        f"{shapes}</svg>"
    )


def _tree(rows: Sequence[Mapping[str, Any]]) -> _Part:
    root = _Part("")
    for row in rows:
        names = str(row.get("path") or "model").split("/")
        node = root
        for name in names:
            found = next((part for part in node.parts if part.name == name), None)
            if found is None:
                found = _Part(name)
                node.parts.append(found)
            node = found
        if row.get("own") and node.parts:  # what is in none of its parts
            node.parts.append(_Part("(rest)", row))
        elif row.get("own"):
            node.parts = [_Part("(rest)", row)]
        else:
            node.row = row
    return root


def _folded(parts: Sequence[_Part]) -> list[_Part]:
    """Equal neighbours with numbers for names become one that says how many they are."""
    found: list[_Part] = []
    first = ""
    for part in parts:
        part.parts = _folded(part.parts)
        last = found[-1] if found else None
        alike = last is not None and part.name.isdigit() and last.signature() == part.signature()
        if last is not None and alike:
            last.times += 1
            last.name = f"{first} … {part.name}"
        else:
            first = part.name
            found.append(part)
    return found


def _flow(parts: Sequence[_Part], x: float, y: float, width: float, most: float) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            middle = x + width / 2
            yield (
                f'<path d="M{middle:g} {y - _GAP:g}V{y - 5:g}m-4 -1l4 5l4 -5" fill="none"'
                f' stroke="{COLOURS["muted"]}"/>'
            )
        yield from _drawn(part, x, y, width, most)
        y += part.height + _GAP


def _drawn(part: _Part, x: float, y: float, width: float, most: float) -> Iterator[str]:
    ink, muted = COLOURS["ink"], COLOURS["muted"]
    name = part.name if part.times == 1 else f"{part.name}  × {part.times}"
    dashed = "" if part.row is not None else ' stroke-dasharray="4 3"'
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{part.height}" rx="7" fill="none"'
        f' stroke="{muted}"{dashed}/>'
    )
    yield _text(x + 10, y + 17, name, ink, bold=True)
    if part.row is None or part.parts:
        inside = y + _TITLE
        yield from _flow(part.parts, x + _INSET, inside, width - 2 * _INSET, most)
        return
    flops = as_number(part.row.get("flops")) or 0.0
    counted = {"params": part.row.get("params"), "FLOPs": flops}
    sizes = " · ".join(f"{count(number)} {what}" for what, number in counted.items() if number)
    yield _text(x + width - 10, y + 17, str(part.row.get("output") or ""), muted, end=True)
    yield _text(x + 10, y + 33, sizes, muted, small=True)
    bar = (width / 2 - 20) * min(1.0, flops / most)
    yield (
        f'<rect x="{x + width / 2 + 10:g}" y="{y + 26:g}" width="{bar:.1f}" height="6" rx="3"'
        f' fill="{COLOURS["train"]}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    bold: bool = False,
    small: bool = False,
    end: bool = False,
) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    style = ' font-weight="600"' if bold else ' font-size="11"' if small else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}"{style}{anchor}>{escape(shown)}</text>'
