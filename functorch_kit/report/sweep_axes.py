"""Parallel coordinates: a line for each job, an axis for each setting, and one for the metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from functorch_kit.report.drawings import evenly_chosen, lines_svg, polyline, tick
from functorch_kit.report.labels import short, shown
from functorch_kit.report.markup import escape
from functorch_kit.report.quantities import metric
from functorch_kit.report.scales import Scale, metric_scale, scale_of
from functorch_kit.report.sweep_jobs import NO_SETTING, Job, Sweep, is_seed
from functorch_kit.report.sweep_overrides import setting_label

SHADES = 7
"""Shades from the worst to the best; their colours are in the page's style."""
MOST_AXES = 24
_MOST_LINES, _MOST_BEST, _MOST_WITHOUT = 300, 50, 50
# Where an axis has few places, the lines through one of them lie side by side, in order.
_FEW_PLACES, _WIDEST_BUNDLE = 12, 0.035
_NO_VALUE = "no value"


def parallel_coordinates(sweep: Sweep) -> str:
    """The settings of the jobs and what came of them.

    Args:
        sweep: whose.

    Returns:
        HTML; empty where no job has come to its end.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> parallel_coordinates(read_sweep({}, lambda job: []))
        ''
    """
    ranked, without = sweep.ranked, _without_value(sweep)
    if not ranked and not without:
        return ""
    # The worst first, so that the best lie on top.
    chosen = [*evenly_chosen(without, _MOST_WITHOUT), *reversed(_chosen(ranked))]
    names = sweep.names[:MOST_AXES]
    scales = [_scale(sweep, name) for name in names]
    result = metric_scale(
        sweep.metric.name,
        [job.value for job in ranked if job.value is not None],
        sweep.metric.mode,
        missing=_NO_VALUE if without else "",
    )
    columns = [
        _bundled([scale.at(job.settings.get(name, NO_SETTING)) for job in chosen])
        for name, scale in zip(names, scales, strict=True)
    ]
    columns.append([result.apart[_NO_VALUE] if j.value is None else result.at(j.value)
                    for j in chosen])  # fmt: skip
    last = max(len(columns) - 1, 1)
    ranks = {job.number: _rank(index, ranked) for index, job in enumerate(ranked)}
    drawn = [f'<line class="axis" x1="{x}" x2="{x}" y1="0" y2="1000"/>'
             for x in (round(1000 * index / last) for index in range(len(columns)))]  # fmt: skip
    for index, job in enumerate(chosen):
        places = [(axis / last, column[index]) for axis, column in enumerate(columns)]
        if len(places) == 1:  # nothing differs: a line needs two ends
            places = [(0.0, places[0][1]), (1.0, places[0][1])]
        drawn.append(polyline(places, _classes(job, ranks, len(ranked)), _title(sweep, job)))
    label = f"{len(chosen)} jobs by their settings and their {sweep.metric.label}"
    inner = lines_svg("".join(drawn), shown(label)) + _ticks([*scales, result], last)
    return (
        f'<div class="scroll"><div class="parallel" style="--axes:{len(columns)}">'
        f'{_heads(names, sweep, last)}<div class="field">{inner}</div></div></div>'
        f"{_legend(sweep)}{_note(sweep, chosen, without)}"
    )


def shade(rank: int, count: int) -> int:
    """The shade of a job by its rank: each shade holds as many jobs as any other.

    Args:
        rank: how many jobs are better.
        count: how many there are.

    Returns:
        From 0, the worst, to ``SHADES - 1``, the best.

    Example:
        >>> [shade(rank, 3) for rank in range(3)]
        [6, 3, 0]
    """
    return round((SHADES - 1) * (1 - rank / max(count - 1, 1)))


def _without_value(sweep: Sweep) -> list[Job]:
    """Jobs that have run and of which no number came: what waits says nothing yet."""
    return [
        job
        for job in sweep.jobs
        if job.value is None and (job.is_complete or job.status == "diverged")
    ]


def _chosen(ranked: Sequence[Job]) -> list[Job]:
    if len(ranked) <= _MOST_LINES:
        return list(ranked)
    rest = evenly_chosen(ranked[_MOST_BEST:], _MOST_LINES - _MOST_BEST)
    return [*ranked[:_MOST_BEST], *rest]


def _scale(sweep: Sweep, name: str) -> Scale:
    values = [job.settings.get(name, NO_SETTING) for job in sweep.jobs]
    few = len({short(value) for value in values}) <= _FEW_PLACES
    return scale_of(values, evenly=is_seed(name) and few)


def _bundled(places: Sequence[float]) -> list[float]:
    distinct = sorted(set(places))
    if len(distinct) > _FEW_PLACES:
        return list(places)
    gaps = [after - before for before, after in itertools.pairwise(distinct)]
    half = min([0.3 * gap for gap in gaps] + [_WIDEST_BUNDLE])
    moved = list(places)
    for place in distinct:
        lines = [index for index, each in enumerate(places) if each == place]
        width = half * (1 - math.exp(-(len(lines) - 1) / 6))  # two lines need less room than fifty
        for order, index in enumerate(lines):
            share = 2 * order / (len(lines) - 1) - 1 if len(lines) > 1 else 0.0
            moved[index] = place + width * share
    return moved


def _rank(index: int, ranked: Sequence[Job]) -> int:
    """How many jobs are better: those that are as good share a rank."""
    while index and ranked[index - 1].value == ranked[index].value:
        index -= 1
    return index


def _classes(job: Job, ranks: Mapping[int, int], count: int) -> str:
    if job.number not in ranks:
        return "gone"
    best = " top" if ranks[job.number] == 0 else ""
    return f"s{shade(ranks[job.number], count)}{best}"


def _title(sweep: Sweep, job: Job) -> str:
    value = job.status if job.value is None else metric(sweep.metric.name, job.value)
    given = ", ".join(
        f"{setting_label(name).rpartition('.')[2]} {short(value)}"
        for name, value in list(job.settings.items())[:MOST_AXES]
    )
    return shown(f"job {job.number}: {value}" + (f" · {given}" if given else ""))


def _heads(names: Sequence[str], sweep: Sweep, last: int) -> str:
    heads = []
    for axis, name in enumerate(names):
        group, dot, own = setting_label(name).rpartition(".")
        text = f"<small>{escape(shown(group))}{dot}</small>" if group else ""
        heads.append(_head(text + escape(shown(own)), axis / last))
    heads.append(_head(f"<b>{escape(shown(sweep.metric.label))}</b>", len(names) / last))
    return f'<div class="heads">{"".join(heads)}</div>'


def _head(inner: str, left: float) -> str:
    return f'<span style="left:{100 * left:.4g}%">{inner}</span>'


def _ticks(scales: Sequence[Scale], last: int) -> str:
    return "".join(
        tick(text, axis / last, place, "before" if axis == 0 and len(scales) > 1 else "after")
        for axis, scale in enumerate(scales)
        for place, text in scale.ticks
    )


def _legend(sweep: Sweep) -> str:
    if not sweep.ranked:
        return ""
    worst, best = (
        metric(sweep.metric.name, job.value) for job in (sweep.ranked[-1], sweep.ranked[0])
    )
    if best == worst:
        return ""
    shades = "".join(f'<i style="background:var(--s{index})"></i>' for index in range(SHADES))
    return (
        f'<p class="shades"><span>worst {escape(worst)}</span><span class="ramp">{shades}</span>'
        f"<span>best {escape(best)}</span></p>"
    )


def _note(sweep: Sweep, chosen: Sequence[Job], without: Sequence[Job]) -> str:
    notes = []
    if len(sweep.ranked) > 1:
        notes.append(
            "Each line is a job, coloured by its rank; the better end of the last axis is at the"
            " top."
        )
    told = len(sweep.ranked) + len(without)
    if len(chosen) < told:
        notes.append(
            f"{len(chosen)} of {told:,} jobs are drawn: the best {_MOST_BEST}, and of the others"
            " some at even distances of rank."
        )
    if without:
        notes.append("Dashed lines are jobs that diverged or gave no number.")
    if (rest := len(sweep.jobs) - told) > 0:
        notes.append(
            f"{rest:,} {'job that has' if rest == 1 else 'jobs that have'} not come to an end"
            f" {'is' if rest == 1 else 'are'} left out."
        )
    if len(sweep.names) > MOST_AXES:
        notes.append(f"The first {MOST_AXES} of {len(sweep.names)} settings have an axis.")
    return f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
