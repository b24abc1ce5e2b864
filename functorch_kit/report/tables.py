"""Tables on the console: with rich on a terminal, as aligned plain text anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from functorch_kit.report.quantities import MISSING, as_number, count, duration, size
from functorch_kit.report.terminal import Stream, is_live, rich_console, write_line


@dataclass(frozen=True)
class Table:
    """Cells of text under headers; columns beyond the first ``left`` ones are right-aligned.

    Attributes:
        title: the line above.
        header: one text per column.
        rows: the cells, each row as long as the header.
        notes: lines below.
        left: how many columns are aligned to the left.
        rule_before: index of the row that a line sets apart (totals), or None.

    Example:
        >>> print(Table("sizes", ("part", "count"), (("stem", "320"), ("head", "9")), ()).plain())
        sizes
          part  count
          stem    320
          head      9
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1
    rule_before: int | None = None

    def plain(self) -> str:
        """The table as aligned text.

        Returns:
            Lines joined by newlines.
        """
        lines = [list(self.header), *(list(row) for row in self.rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.header))]
        out = [self.title] if self.title else []
        for number, line in enumerate(lines):
            if self.rule_before is not None and number == self.rule_before + 1:
                out.append("  " + "  ".join("-" * width for width in widths))
            cells = [
                cell.ljust(width) if index < self.left else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            out.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join([*out, *(f"  {note}" for note in self.notes)])

    def rich(self) -> Any:
        """The table as a rich renderable.

        Returns:
            A ``rich.console.Group``.
        """
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        for index, header in enumerate(self.header):
            left = index < self.left
            table.add_column(
                Text(header),
                justify="left" if left else "right",
                style="dim" if left and self.left == 1 else "",
                overflow="fold",
            )
        for number, row in enumerate(self.rows):
            if number == self.rule_before:
                table.add_section()
            table.add_row(*(Text(cell) for cell in row))
        parts: list[Any] = [Text(self.title, style="bold")] if self.title else []
        parts.append(Padding(table, (0, 0, 0, 2)))
        parts += [Padding(Text(note, style="dim"), (0, 0, 0, 2)) for note in self.notes]
        return Group(*parts)

    def show(self, stream: Stream | None = None) -> None:
        """Print the table.

        Args:
            stream: where to; standard output if None.
        """
        stream = stream or sys.stdout
        if is_live(stream):
            rich_console(stream).print(self.rich())
        else:
            write_line(stream, self.plain())


def as_fields(value: Any) -> dict[str, Any]:
    """The fields of a report, be it a dict or an object with ``to_dict``.

    Args:
        value: the report.

    Returns:
        Its fields by name.

    Example:
        >>> as_fields({"name": "train_step"})
        {'name': 'train_step'}
    """
    if isinstance(value, Mapping):
        return dict(value)
    return dict(value.to_dict()) if hasattr(value, "to_dict") else dict(vars(value))


def donated(report: Mapping[str, Any]) -> str:
    """How many of a program's donated buffers are reused.

    Args:
        report: with the leaf paths ``donated`` and ``not_donated``.

    Returns:
        Such as ``24 of 24``, or a dash where the program donates nothing.

    Example:
        >>> donated({"donated": ["w", "b"], "not_donated": ["step"]}), donated({})
        ('2 of 3', '-')
    """
    reused = len(report.get("donated") or ())
    total = reused + len(report.get("not_donated") or ())
    return f"{reused} of {total}" if total else MISSING


def program_table(programs: Sequence[Any]) -> Table:
    """The compile report: a column for each program, so that it fits a narrow terminal.

    Args:
        programs: reports as dicts, or objects with ``to_dict``.

    Returns:
        The table.

    Example:
        >>> print(
        ...     program_table(
        ...         [
        ...             {
        ...                 "name": "train_step",
        ...                 "compile_seconds": 1.24,
        ...                 "from_cache": False,
        ...                 "flops": 12_345_678,
        ...                 "peak_bytes": 4_520_000,
        ...             }
        ...         ]
        ...     ).plain()
        ... )
        compiled programs
                           train_step
          compile              1.24 s
          from cache               no
          FLOPs per step       12.3 M
          bytes accessed            -
          arguments                 -
          temporary                 -
          peak memory         4.52 MB
          donated buffers           -
    """
    reports = [as_fields(program) for program in programs]
    kinds = (
        ("compile", lambda r: duration(r.get("compile_seconds"))),
        ("from cache", lambda r: {True: "yes", False: "no"}.get(r.get("from_cache"), MISSING)),
        ("FLOPs per step", lambda r: count(r.get("flops"))),
        ("bytes accessed", lambda r: size(r.get("bytes_accessed"))),
        ("arguments", lambda r: size(r.get("argument_bytes"))),
        ("temporary", lambda r: size(r.get("temp_bytes"))),
        ("peak memory", lambda r: size(r.get("peak_bytes"))),
        ("donated buffers", donated),
    )
    header = ("", *(str(report.get("name", "program")) for report in reports))
    rows = [(label, *(text(report) for report in reports)) for label, text in kinds]
    return Table("compiled programs", header, rows)


def show_programs(programs: Sequence[Any], *, stream: Stream | None = None) -> None:
    """Print the compile report of several programs.

    Args:
        programs: reports as dicts, or objects with ``to_dict``.
        stream: where to; standard output if None.

    Example:
        >>> show_programs([{"name": "eval_step", "compile_seconds": 0.31}])
        compiled programs
                           eval_step
          compile             310 ms
          from cache               -
          FLOPs per step           -
          bytes accessed           -
          arguments                -
          temporary                -
          peak memory              -
          donated buffers          -
    """
    program_table(programs).show(stream or sys.stdout)


def show_summary(summary: Any, *, stream: Stream | None = None) -> None:
    """Print a model's summary: path, output, parameters and FLOPs of each part.

    Args:
        summary: a ``program.Summary`` or its dict: ``rows``, each with path, output, params, flops
            and own, and ``totals`` by path, of which ``""`` is the whole model.
        stream: where to; standard output if None.

    Example:
        >>> head = {"path": "head", "output": "float32[1,10]", "params": 650, "flops": 1290}
        >>> show_summary({"rows": [head], "totals": {"": head}})
          part   output         parameters  FLOPs
          head   float32[1,10]         650  1,290
          -----  -------------  ----------  -----
          total  float32[1,10]         650  1,290
    """
    fields = as_fields(summary)
    parts = [as_fields(row) for row in fields.get("rows", ())]
    rows = [_part(str(row.get("path") or "(model)"), row) for row in parts]
    whole = dict(fields.get("totals") or {}).get("")
    if whole is not None:
        rows.append(_part("total", {**as_fields(whole), "own": False}))
    header = ("part", "output", "parameters", "FLOPs")
    Table("", header, rows, left=2, rule_before=len(parts) if whole is not None else None).show(
        stream
    )


def _part(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the summary; parameters are written out, because people compare them exactly."""
    params = as_number(row.get("params"))
    return (
        f"{name} (rest)" if row.get("own") else name,
        str(row.get("output") or ""),
        MISSING if params is None else f"{params:,.0f}",
        count(row.get("flops")),
    )
