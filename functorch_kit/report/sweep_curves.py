"""Learning curves of a sweep: jobs that differ in seed alone are one curve with a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from functorch_kit.report.drawings import key, points, polyline, step_chart
from functorch_kit.report.labels import short, shown
from functorch_kit.report.markup import escape
from functorch_kit.report.quantities import as_number, is_share, metric, words
from functorch_kit.report.scales import Scale, curve_scale, step_scale
from functorch_kit.report.sweep_jobs import (
    NO_SETTING,
    Job,
    Metric,
    Rows,
    Sweep,
    is_seed,
    mean_of,
    over_seeds,
    spread_of,
)
from functorch_kit.report.sweep_overrides import setting_label

COLOURS = 6
_BEHIND = 60
_POINTS = 200
_LABELLED = 6
_BEGINNING = 0.1


class Curve(NamedTuple):
    """One curve: the mean over the jobs of a group, and how far they spread.

    Attributes:
        steps: (N,), rising.
        mean: (N,), finite.
        spread: (N,), the sample's standard deviation; NaN where fewer than two jobs got so far.
        jobs: how many jobs it is made of.
    """

    steps: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    jobs: int


def mean_curve(histories: Sequence[Rows], split: str, name: str) -> Curve:
    """The mean of a metric over several jobs at each step that any of them logged.

    Args:
        histories: the rows of each job.
        split: whose rows count.
        name: of the metric. Values that are not finite are stepped over.

    Returns:
        The curve, of no points where no job has a finite value.

    Example:
        >>> rows = [{"step": 10, "split": "train", "loss": 2.0}]
        >>> more = [{"step": 10, "split": "train", "loss": 4.0}]
        >>> curve = mean_curve([rows, more], "train", "loss")
        >>> curve.mean.tolist(), curve.spread.round(3).tolist(), curve.jobs
        ([3.0], [1.414], 2)
    """
    found: dict[float, list[float]] = {}
    jobs = 0
    for rows in histories:
        before = sum(map(len, found.values()))
        for row in rows:
            value = as_number(row.get(name)) if row.get("split") == split else None
            if value is not None and math.isfinite(value):
                found.setdefault(float(row.get("step", 0)), []).append(value)
        jobs += sum(map(len, found.values())) > before
    steps = sorted(found)
    spreads = [spread_of(found[step]) for step in steps]
    return Curve(
        np.asarray(steps, np.float64),
        np.asarray([mean_of(found[step]) for step in steps], np.float64),
        np.asarray([math.nan if each is None else each for each in spreads], np.float64),
        jobs,
    )


def learning_curves(sweep: Sweep, histories: Mapping[int, Rows]) -> str:
    """The metric over the steps: the best groups in colour, the others in grey behind them.

    Args:
        sweep: whose.
        histories: number of a job -> its logged rows.

    Returns:
        HTML; empty where nothing was logged.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> learning_curves(read_sweep({}, lambda job: []), {})
        ''
    """
    groups = over_seeds(sweep)
    split, name = _series(sweep.metric, histories)
    curves: list[tuple[list[Job], Curve]] = []
    for group in groups:
        curve = mean_curve([histories.get(job.number, ()) for job in group], split, name)
        if curve.steps.size:
            curves.append((group, _thinned(curve)))
        if len(curves) == COLOURS + _BEHIND:
            break
    if not curves:
        return ""
    front, behind = curves[:COLOURS], curves[COLOURS:]
    across = step_scale(max(float(curve.steps[-1]) for _, curve in curves))
    upwards = _upwards(name, [curve for _, curve in front])
    drawn = [polyline(_line(curve, across, upwards), "behind") for _, curve in behind]
    for index, (_, curve) in reversed(list(enumerate(front))):
        drawn.append(_band(curve, across, upwards, index))
        drawn.append(polyline(_line(curve, across, upwards), f"c{index}"))
    title = shown(words(f"{'training' if split == 'train' else split} {name}"))
    label = f"{title} over the steps, {len(curves)} curves"
    scale = ", logarithmic" if upwards.is_log else ""
    return (
        f'<p class="axis-name">{escape(title + scale)}</p>'
        f"{step_chart(''.join(drawn), label, upwards, across)}"
        f"{_keys(sweep, front)}{_note(sweep, groups, len(front), len(behind))}"
    )


def _series(judged: Metric, histories: Mapping[int, Rows]) -> tuple[str, str]:
    """Which rows and which metric of them are drawn."""
    wanted = [(judged.split, judged.name), ("validation", judged.name), ("validation", "loss")]
    for split, name in wanted:
        if any(
            name in row and row.get("split") == split for rows in histories.values() for row in rows
        ):
            return split, name
    return "train", "loss"


def _upwards(name: str, curves: Sequence[Curve]) -> Scale:
    """The axis of the metric, wide enough for the curves in colour; small is always below.

    What they do in the first tenth would leave the rest, which tells them apart, too little room.
    """
    last = max(curve.steps[-1] for curve in curves)
    curves = [_later(curve, last * _BEGINNING) for curve in curves]
    ends = [curve.mean for curve in curves]
    ends += [
        curve.mean + sign * np.nan_to_num(curve.spread) for curve in curves for sign in (-1, 1)
    ]
    values = np.concatenate(ends)
    means = np.concatenate([curve.mean for curve in curves])
    # On a logarithm, a band that reaches to zero has no lower end: the means say where it is.
    if means.min() > 0:
        values = values[values > means.min() / 3]
    if is_share(name):
        values = values.clip(0.0, 1.0)
    return curve_scale(name, float(values.min()), float(values.max()))


def _later(curve: Curve, step: float) -> Curve:
    kept = curve.steps >= min(step, curve.steps[-1])
    return curve._replace(steps=curve.steps[kept], mean=curve.mean[kept], spread=curve.spread[kept])


def _line(curve: Curve, across: Scale, upwards: Scale) -> list[tuple[float, float]]:
    places = [
        (across.at(step), upwards.beyond(value))
        for step, value in zip(curve.steps.tolist(), curve.mean.tolist(), strict=True)
    ]
    # One point makes no line: a short one stands for it.
    return places if len(places) > 1 else [(places[0][0] - 0.01, places[0][1]), *places]


def _band(curve: Curve, across: Scale, upwards: Scale, index: int) -> str:
    known = np.isfinite(curve.spread)
    if not known.any():
        return ""
    steps, mean, spread = (values[known] for values in (curve.steps, curve.mean, curve.spread))
    edges = [
        [
            (across.at(s), upwards.beyond(v))
            for s, v in zip(steps.tolist(), edge.tolist(), strict=True)
        ]
        for edge in (mean + spread, mean - spread)
    ]
    return f'<polygon class="band c{index}" points="{points([*edges[0], *reversed(edges[1])])}"/>'


def _thinned(curve: Curve) -> Curve:
    """At most so many points as are seen: the means of even stretches."""
    if curve.steps.size <= _POINTS:
        return curve
    stretches = np.array_split(np.arange(curve.steps.size), _POINTS)
    spread = [curve.spread[s][np.isfinite(curve.spread[s])] for s in stretches]
    return curve._replace(
        steps=np.asarray([curve.steps[s].mean() for s in stretches]),
        mean=np.asarray([curve.mean[s].mean() for s in stretches]),
        spread=np.asarray([each.mean() if each.size else math.nan for each in spread]),
    )


def _keys(sweep: Sweep, front: Sequence[tuple[list[Job], Curve]]) -> str:
    """What each curve is: its line, its settings, its jobs, and where they ended."""
    rows = []
    for index, (group, curve) in enumerate(front):
        values = [job.value for job in group if job.value is not None]
        result = metric(sweep.metric.name, mean_of(values)) if values else "no value"
        if (spread := spread_of(values)) is not None:
            result += f" ± {_spread_text(sweep.metric.name, spread)}"
        seeds = f"{len(group)} seeds" if len(group) > 1 else f"job {group[0].number}"
        if curve.jobs < len(group):
            seeds += f", {curve.jobs} with rows"
        if len(values) < len(group):
            seeds += f", {len(values)} with a result"
        rows.append(
            f"<li>{key(f'c{index}')}<span>{escape(_group_text(sweep, group[0]))}</span>"
            f"<span>{escape(seeds)}</span><b>{escape(result)}</b></li>"
        )
    return f'<ol class="curve-keys">{"".join(rows)}</ol>'


def _group_text(sweep: Sweep, job: Job) -> str:
    names = [name for name in sweep.names if not is_seed(name)]
    if not names:
        return "all jobs"
    given = [
        f"{setting_label(name).rpartition('.')[2]}={short(job.settings[name])}"
        for name in names
        if job.settings.get(name, NO_SETTING) != NO_SETTING
    ]
    more = f" and {len(given) - _LABELLED} more" if len(given) > _LABELLED else ""
    return shown(", ".join(given[:_LABELLED]) + more) or NO_SETTING


def _spread_text(name: str, spread: float) -> str:
    return f"{100 * spread:.2f}" if is_share(name) else f"{spread:.2g}"


def _note(sweep: Sweep, groups: Sequence[list[Job]], front: int, behind: int) -> str:
    notes = []
    sizes = sorted({len(group) for group in groups})
    if sizes[-1] > 1:
        seeds = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        notes.append(
            f"A curve is the mean over the jobs that differ in seed alone, {seeds} of them; its"
            " band is one standard deviation wide on either side."
        )
    if behind:
        notes.append(f"The {front} best are in colour, {behind} more in grey.")
    if (rest := len(groups) - front - behind) > 0:
        notes.append(f"{rest:,} {'curve is' if rest == 1 else 'curves are'} not drawn.")
    return f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
