"""The jobs of a sweep as rows: ``sweep.csv``, and the table of the best on the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from functorch_kit.report.labels import short, shown, value_text
from functorch_kit.report.markup import escape
from functorch_kit.report.quantities import as_number, duration, metric, words
from functorch_kit.report.sweep_jobs import NO_SETTING, Job, Sweep
from functorch_kit.report.sweep_overrides import setting_label

_FIRST, _MOST, _MOST_BROKEN = 20, 300, 100
_MOST_METRICS, _MOST_SETTINGS = 4, 24
_LAST = ("best_step", "steps", "seconds")


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        label: its head.
        full: what is shown where the mouse rests on the head; empty for nothing.
        cell: the cell of a job, as HTML.
    """

    label: str
    full: str
    cell: Callable[[Job], str]


def csv_text(sweep: Sweep) -> str:
    r"""The whole sweep as CSV: a row for each job, by number.

    As RFC 4180 has it: commas, quotes where a cell needs them, lines that end in CR LF. A list is
    JSON, a null is ``null``, a setting that a job does not have is an empty cell; numbers parse
    back to the same value, ``NaN`` and ``Infinity`` are written so.

    Args:
        sweep: what to write.

    Returns:
        The text; its columns are number, folder, status, the settings, and the metrics in
        alphabetical order.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> job = {"number": 0, "folder": "0", "settings": {"seed": 3}, "status": "waiting"}
        >>> csv_text(read_sweep({"jobs": [job]}, lambda job: []))
        'number,folder,status,seed\r\n0,0,waiting,3\r\n'
    """
    found = {name for job in sweep.jobs for name in job.summary if name != "status"}
    measured = [*sorted(found - {*_LAST}), *(name for name in _LAST if name in found)]
    own = {"number", "folder", "status", *sweep.names}
    header = [f"summary.{name}" if name in own else name for name in measured]
    text = io.StringIO()
    out = csv.writer(text)  # its dialect, excel, is RFC 4180's
    out.writerow(["number", "folder", "status", *sweep.names, *header])
    for job in sweep.jobs:
        settings = (value_text(job.settings[n]) if n in job.settings else "" for n in sweep.names)
        metrics = (value_text(job.summary[n]) if n in job.summary else "" for n in measured)
        out.writerow([job.number, job.folder or "", job.status, *settings, *metrics])
    return text.getvalue()


def best_table(sweep: Sweep, linked: Collection[int]) -> str:
    """The jobs from the best to the worst, and at the end those that came to none.

    Args:
        sweep: whose.
        linked: numbers of the jobs that have a page of their own.

    Returns:
        HTML: the first rows, the rest folded; empty where there is no job.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> best_table(read_sweep({}, lambda job: []), ())
        ''
    """
    if not sweep.jobs:
        return ""
    few = len(sweep.ranked) <= _FIRST + 5  # not worth folding
    top = sweep.ranked if few else sweep.ranked[:_FIRST]
    rest = sweep.ranked[len(top) : _MOST]
    columns = _columns(sweep, sweep.ranked, linked)
    parts = [_table(columns, top, 1)] if top else []
    if rest:
        left = len(sweep.ranked) - len(top) - len(rest)
        title = f"{len(rest):,} more" + (f"; the last {left:,} are in sweep.csv" if left else "")
        parts.append(_folded(title, _table(columns, rest, len(top) + 1)))
    numbers = {job.number for job in sweep.ranked}
    broken = [job for job in sweep.jobs if job.number not in numbers]
    broken.sort(key=lambda job: (job.status == "waiting", job.status, job.number))
    if told := broken[:_MOST_BROKEN]:
        left = len(broken) - len(told)
        title = f"{len(broken):,} without a result"
        title += f", {left:,} of them only in sweep.csv" if left else ""
        body = _table(_columns(sweep, (), linked), told)
        parts.append(_folded(title, body, is_open=len(told) <= _FIRST))
    if (left := len(sweep.names) - _MOST_SETTINGS) > 0:
        parts.append(f'<p class="note">{left:,} more settings are in sweep.csv.</p>')
    return "".join(parts)


def page_of(job: Job) -> str:
    """Where a job's own page lies, relative to the sweep's.

    Example:
        >>> page_of(Job(0, "a b", {}, "finished", {}))
        './a%20b/report.html'
    """
    return f"./{quote(job.folder or str(job.number))}/report.html"


def _columns(sweep: Sweep, ranked: Sequence[Job], linked: Collection[int]) -> list[Column]:
    """What the table says of each job: the settings always, results where there are any."""

    def link(job: Job) -> str:
        if job.number not in linked:
            return f"<td>{job.number}</td>"
        return f'<td><a href="{escape(page_of(job))}">{job.number}</a></td>'

    columns = [Column("job", "", link)]
    if ranked:
        columns.append(_of(sweep.metric.label, lambda job: metric(sweep.metric.name, job.value)))
    if not ranked or any(job.status != "finished" for job in ranked):
        columns.append(_of("status", lambda job: job.status))
    for name in sweep.names[:_MOST_SETTINGS]:
        label = setting_label(name)
        # The last part is enough to see what is meant; the whole is there to be typed.
        head, full = short(label.rpartition(".")[2]), shown(label)
        columns.append(
            Column(head, full, lambda job, name=name: _setting(job.settings.get(name, NO_SETTING)))
        )
    for name in _metric_columns(sweep) if ranked else ("steps",):
        columns.append(
            _of(words(name), lambda job, name=name: _measured(name, job.summary.get(name)))
        )
    return columns


def _of(label: str, text: Callable[[Job], str]) -> Column:
    return Column(shown(label), "", lambda job: f"<td>{escape(shown(text(job)))}</td>")


def _metric_columns(sweep: Sweep) -> list[str]:
    judged = f"{sweep.metric.split}_{sweep.metric.name}".lstrip("_")
    found = {
        name
        for job in sweep.jobs
        for name, value in job.summary.items()
        if name != judged and as_number(value) is not None
    }
    order = [
        *(f"{split}_{name}" for split in ("test", "validation")
          for name in (sweep.metric.name, "loss")),
        *sorted(name for name in found if name.startswith(("test_", "validation_"))),
    ]  # fmt: skip
    measured = [name for name in dict.fromkeys(order) if name in found][:_MOST_METRICS]
    return [*measured, *(name for name in ("best_step", "seconds") if name in found)]


def _setting(value: Any) -> str:
    text = short(value)
    return f"<td{_titled(shown(value_text(value)), text)}>{escape(text)}</td>"


def _titled(full: str, text: str) -> str:
    return f' title="{escape(full)}"' if full not in ("", text) else ""


def _measured(name: str, value: Any) -> str:
    number = as_number(value)
    if name in ("best_step", "steps") and number is not None and number.is_integer():
        return f"{number:,.0f}"
    return duration(value) if name == "seconds" else metric(name, value)


def _table(columns: Sequence[Column], jobs: Sequence[Job], first: int | None = None) -> str:
    """Rows with their rank, from ``first`` on, where they have one."""
    heads = "".join(
        f'<th scope="col"{_titled(column.full, column.label)}>{escape(column.label)}</th>'
        for column in columns
    )
    rank = "" if first is None else '<th scope="col">rank</th>'
    body = []
    for index, job in enumerate(jobs):
        place = "" if first is None else f'<th scope="row">{first + index}</th>'
        cells = "".join(column.cell(job) for column in columns)
        body.append(f"<tr>{place}{cells}</tr>")
    return (
        f'<div class="scroll"><table class="data jobs"><thead><tr>{rank}{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _folded(title: str, body: str, is_open: bool = False) -> str:
    state = " open=''" if is_open else ""
    return f"<details{state}><summary>{escape(title)}</summary>{body}</details>"
