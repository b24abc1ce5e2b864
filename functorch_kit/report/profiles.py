"""A profile on the console, and as ``profile.json`` and ``profile.txt`` beside its recording."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit.report.quantities import MISSING, as_number, duration
from functorch_kit.report.records import dumps
from functorch_kit.report.tables import Table, as_fields
from functorch_kit.report.terminal import Stream

_DIRECTIONS = ("forward", "backward", "outside")


def show_profile(profile: Any, *, stream: Stream | None = None) -> None:
    """Print where the time of a step goes: by layer, then by kind of operation.

    Args:
        profile: a ``program.Profile`` or its dict.
        stream: where to; standard output if None.

    Example:
        >>> row = {"forward": 0.003, "backward": 0.005, "seconds": 0.008, "share": 0.8}
        >>> wait = {"kind": "host wait", "outside": 0.002, "seconds": 0.002, "share": 0.2}
        >>> product = {"kind": "matrix product", **row}
        >>> show_profile({"by_layer": [{"path": "head", **row}], "by_kind": [product, wait]})
          layer  forward  backward  outside  together  of step
          head   3.00 ms   5.00 ms        -   8.00 ms   80.0 %
          kind            forward  backward  outside  together  of step
          matrix product  3.00 ms   5.00 ms        -   8.00 ms   80.0 %
          host wait             -         -  2.00 ms   2.00 ms   20.0 %
    """
    for table in profile_tables(as_fields(profile)):
        table.show(stream or sys.stdout)


def profile_tables(fields: Mapping[str, Any]) -> tuple[Table, Table]:
    """The two tables of a profile; what they add up to stands below the second.

    Args:
        fields: ``Profile.to_dict()``.

    Returns:
        By layer, by kind.

    Example:
        >>> by_layer, by_kind = profile_tables({"by_layer": [], "by_kind": [], "notes": ["slow"]})
        >>> by_kind.notes
        ('slow',)
    """
    return (
        _table("layer", "path", fields.get("by_layer") or ()),
        _table("kind", "kind", fields.get("by_kind") or (), notes=tuple(_notes(fields))),
    )


def write_profile(folder: str | os.PathLike[str], profile: Any) -> Path:
    """Write ``profile.json`` and the tables as ``profile.txt``.

    Args:
        folder: where to; made if it is not there.
        profile: a ``program.Profile`` or its dict.

    Returns:
        The path of ``profile.json``.

    Example:
        >>> import tempfile
        >>> write_profile(tempfile.mkdtemp(), {"by_layer": [], "by_kind": []}).name
        'profile.json'
    """
    fields = as_fields(profile)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "profile.json"
    path.write_text(dumps(fields, indent=2) + "\n", encoding="utf-8")
    text = "\n\n".join(table.plain() for table in profile_tables(fields))
    (target / "profile.txt").write_text(text + "\n", encoding="utf-8")
    return path


def _table(
    title: str, key: str, rows: Sequence[Mapping[str, Any]], notes: tuple[str, ...] = ()
) -> Table:
    header = (title, *_DIRECTIONS, "together", "of step")
    cells = [
        (
            str(row.get(key) or "(outside any layer)"),
            *(duration(row[each]) if row.get(each) else MISSING for each in _DIRECTIONS),
            duration(row.get("seconds")),
            _percent(row.get("share")),
        )
        for row in rows
    ]
    return Table("", header, cells, notes)


def _notes(fields: Mapping[str, Any]) -> list[str]:
    notes = []
    if as_number(fields.get("step_seconds")):
        parts = (
            (duration(fields.get(f"{key}_seconds")), words)
            for key, words in (
                ("explained", "in operations"),
                ("host", "host wait"),
                ("unexplained", "unexplained"),
            )
        )
        sums = " + ".join(f"{time} {words}" for time, words in parts)
        notes.append(f"{sums} = {duration(fields['step_seconds'])} a step")
        notes.append(
            f"mean of {fields.get('steps')} steps under the profiler;"
            f" {duration(fields.get('plain_seconds'))} a step without it"
        )
    if as_number(fields.get("parallelism")):
        notes.append(f"{fields['parallelism']:.1f} operations at once, while any ran")
    if fields.get("trace_file"):
        notes.append(f"recording for https://ui.perfetto.dev: {fields['trace_file']}")
    return notes + [str(note) for note in fields.get("notes") or ()]


def _percent(share: Any) -> str:
    number = as_number(share)
    return MISSING if number is None else f"{100 * number:.1f} %"
