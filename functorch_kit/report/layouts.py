"""What lies where on several devices, and what they send each other, for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from functorch_kit.report.markup import escape, section, table
from functorch_kit.report.quantities import as_number, count, size

_ROWS = 40


def layout_section(program: Mapping[str, Any]) -> str:
    """The layout of the parameters, the bytes on a device, and the collectives of a step.

    Args:
        program: the fields of ``program.json``.

    Returns:
        HTML; empty for a run on one device.

    Example:
        >>> layout_section({})
        ''
        >>> "data 4" in layout_section({"layout": {"mesh": {"data": 4}, "devices": 4}})
        True
    """
    found = program.get("layout")
    if not isinstance(found, Mapping):
        return ""
    mesh = found.get("mesh") or {}
    grid = " × ".join(f"{name} {parts}" for name, parts in dict(mesh).items())
    sentence = f"{found.get('devices')} devices: {grid}."
    parts = [f'<p class="note">{escape(sentence)}</p>']
    parts.append(_state(found.get("state")))
    parts.append(_parameters(found.get("parameters")))
    exchanged = program.get("collectives")
    for name, rows in dict(exchanged if isinstance(exchanged, Mapping) else {}).items():
        parts.append(_collectives(str(name), rows))
    return section("Devices", *parts)


def _state(found: Any) -> str:
    rows = [
        [name, size(each.get("bytes")), size(each.get("bytes_per_device"))]
        for name, each in dict(found if isinstance(found, Mapping) else {}).items()
    ]
    return table(["", "in all", "on a device"], rows) if rows else ""


def _parameters(found: Any) -> str:
    rows = [row for row in found or () if isinstance(row, Mapping)]
    if not rows:
        return ""
    rows.sort(key=lambda row: -(as_number(row.get("bytes_per_device")) or 0))
    body = [
        [
            str(row.get("path")) + _times(row.get("count")),
            " × ".join(map(str, row.get("shape") or ())) or "1",
            ", ".join(word or "whole" for word in row.get("spec") or ()) or "whole",
            size(row.get("bytes_per_device")),
        ]
        for row in rows[:_ROWS]
    ]
    title = f"The layout of {len(rows)} kinds of parameters"
    if len(rows) > _ROWS:
        title += f", the largest {_ROWS} of them"
    inner = table(["parameter", "shape", "split over", "each on a device"], body)
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def _times(number: Any) -> str:
    return f" ({number} of them)" if (as_number(number) or 1) > 1 else ""


def _collectives(name: str, found: Any) -> str:
    rows = [row for row in found or () if isinstance(row, Mapping)]
    if not rows:
        return f'<p class="note">{escape(name)}: the devices exchange nothing.</p>'
    body = [
        [
            str(row.get("kind")),
            str(row.get("group")),
            count(row.get("times")),
            size(row.get("size")),
        ]
        for row in rows
    ]
    return table([name, "devices in a group", "times", "results on a device"], body)
