"""A profile as values, as plain JSON, and as a table of text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

OUTSIDE = "(outside any layer)"
"""Shown for what stands in no named scope: losses, optimizers, the loop around them."""


@dataclasses.dataclass(frozen=True)
class ProfileRecord:
    """The operations of one layer, direction and kind.

    Attributes:
        path: the layer; ``""`` outside any.
        direction: ``forward``, ``backward``, or ``outside`` of what is differentiated.
        kind: such as ``matrix product``; ``unknown`` for what is not in the program's text.
        seconds: wall time per step; where several ran at once each has its share.
        share: of the step.
        calls: operations per step.
        longest: the operation that took most of it, by its name in the compiled program.
    """

    path: str
    direction: str
    kind: str
    seconds: float
    share: float
    calls: float
    longest: str


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where the time of a step goes.

    ``records``, ``host_seconds`` and ``unexplained_seconds`` add up to ``step_seconds``.

    Attributes:
        name: the program's name.
        records: a row for each layer, direction and kind, the longest first.
        steps: how many steps were recorded.
        step_seconds: wall time per step under the profiler.
        plain_seconds: the same without it, so what recording costs is seen.
        host_seconds: per step, before the first operation and after the last: dispatch and waiting.
        unexplained_seconds: per step, between operations, where nothing was recorded.
        parallelism: how many operations ran at once, on average, while any ran.
        trace_file: for https://ui.perfetto.dev ; None if it was not kept.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        notes: one line for each thing that the reader must know to believe the numbers.
    """

    name: str
    records: tuple[ProfileRecord, ...]
    steps: int
    step_seconds: float
    plain_seconds: float
    host_seconds: float
    unexplained_seconds: float
    parallelism: float
    trace_file: str | None
    platform: str
    notes: tuple[str, ...] = ()

    @property
    def explained_seconds(self) -> float:
        """Per step, the time that is put down to an operation."""
        return sum(record.seconds for record in self.records)

    def by_layer(self) -> list[dict[str, Any]]:
        """Rows with ``path``, ``forward``, ``backward``, ``outside``, ``seconds`` and ``share``."""
        return self._grouped("path", lambda record: record.path)

    def by_kind(self) -> list[dict[str, Any]]:
        """The same by ``kind``, with ``host wait`` and ``unexplained`` at the end."""
        rows = self._grouped("kind", lambda record: record.kind)
        for kind, seconds in (
            ("host wait", self.host_seconds),
            ("unexplained", self.unexplained_seconds),
        ):
            rows.append(self._row("kind", kind, {"outside": seconds}))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON."""
        plain = dataclasses.asdict(self)
        plain["records"], plain["notes"] = list(plain["records"]), list(plain["notes"])
        return plain | {
            "explained_seconds": self.explained_seconds,
            "by_layer": self.by_layer(),
            "by_kind": self.by_kind(),
        }

    def __str__(self) -> str:
        """Two tables, by layer and by kind, and what they add up to."""
        tables = [
            _table("layer", [{**row, "path": row["path"] or OUTSIDE} for row in self.by_layer()]),
            _table("kind", self.by_kind()),
        ]
        return "\n\n".join([*tables, "\n".join([*self.summary(), *self.notes])])

    def summary(self) -> list[str]:
        """What the rows add up to, in sentences."""
        lines = [
            f"{_ms(self.explained_seconds)} in operations + {_ms(self.host_seconds)} host wait"
            f" + {_ms(self.unexplained_seconds)} unexplained = {_ms(self.step_seconds)} a step,"
            f" mean of {self.steps} under the profiler ({_ms(self.plain_seconds)} without it);"
            f" {self.parallelism:.1f} operations at once"
        ]
        if self.trace_file is not None:
            lines.append(f"trace for https://ui.perfetto.dev: {self.trace_file}")
        return lines

    def _grouped(self, label: str, key: Callable[[ProfileRecord], str]) -> list[dict[str, Any]]:
        groups: dict[str, dict[str, float]] = {}
        for record in self.records:
            group = groups.setdefault(key(record), {})
            group[record.direction] = group.get(record.direction, 0.0) + record.seconds
        rows = [self._row(label, name, seconds) for name, seconds in groups.items()]
        return sorted(rows, key=lambda row: -row["seconds"])

    def _row(self, label: str, name: str, seconds: dict[str, float]) -> dict[str, Any]:
        total = sum(seconds.values())
        directions = {each: seconds.get(each, 0.0) for each in ("forward", "backward", "outside")}
        share = total / self.step_seconds if self.step_seconds else 0.0
        return {label: name, **directions, "seconds": total, "share": share}


def _table(label: str, rows: list[dict[str, Any]]) -> str:
    header = (label, "forward", "backward", "outside", "together", "of step")
    cells = [header, *(cells_of(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    )


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of ``by_layer`` or ``by_kind`` as text.

    Example:
        >>> cells_of({"path": "conv", "forward": 0.002, "seconds": 0.002, "share": 0.25})
        ('conv', '2.000 ms', '-', '-', '2.000 ms', '25.0 %')
    """
    name = row["path"] if "path" in row else row["kind"]
    times = (row.get(each) for each in ("forward", "backward", "outside"))
    return (
        str(name),
        *(_ms(time) if time else "-" for time in times),
        _ms(row["seconds"]),
        f"{row['share']:.1%}".replace("%", " %"),
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"
