"""The curves of a run: every metric over the steps, training smoothed, evaluations marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_kit.report.drawings import key, marks, polyline, step_chart
from functorch_kit.report.labels import shown
from functorch_kit.report.markup import escape, section
from functorch_kit.report.quantities import is_share, metric, words
from functorch_kit.report.scales import Scale, curve_scale, step_scale
from functorch_kit.report.sections import evaluations
from functorch_kit.report.series import Series, series_of, smooth

_MOST = 6
# What is no metric of training, though it stands in a row.
_NOT_DRAWN = ("split", "best", "seconds", "epoch", "examples", "time")
# More points than a chart has pixels make the page large and nothing clearer.
_POINTS, _SMOOTH_POINTS, _MARKED = 600, 200, 60
# Fewer rows than this are clearer as they are.
_SMOOTHED = 25
# A few spikes shall not flatten the rest.
_USUAL = (0.01, 0.98)
_SPLITS = ("train", "validation", "test")


class _Drawn(NamedTuple):
    """A split of a metric.

    Attributes:
        label: in the legend.
        line: classes of its line.
        mark: classes of its marks; empty where there are none.
        series: what the line goes through.
        behind: the raw values that a smoothed line is the mean of.
        shown: values that the axis must reach.
    """

    label: str
    line: str
    mark: str
    series: Series
    behind: Series | None
    shown: np.ndarray


def run_curves(rows: Iterable[Mapping[str, Any]], best_step: int | None) -> str:
    """The section of a run's curves, the loss first.

    Args:
        rows: of ``metrics.jsonl``.
        best_step: the step to mark, or None.

    Returns:
        HTML; empty where nothing was logged.

    Example:
        >>> rows = [{"step": step, "split": "train", "loss": 1 / (1 + step)} for step in range(9)]
        >>> "Loss" in run_curves(rows, None), run_curves([], None)
        (True, '')
    """
    rows = list(rows)
    found = {name: each for name, each in series_of(rows).items() if name not in _NOT_DRAWN}
    names = sorted(found, key=lambda name: (name != "loss", not is_share(name)))
    if not names:
        return ""
    panels = "".join(_panel(name, found[name], best_step) for name in names[:_MOST])
    wide = " single" if len(names) == 1 else ""
    notes = "The dotted line marks the best step. " if best_step is not None else ""
    if len(names) > _MOST:
        notes += f"Not drawn: {', '.join(shown(words(name)) for name in names[_MOST:])}."
    note = f'<p class="note">{escape(notes.strip())}</p>' if notes else ""
    body = f'<div class="grid{wide}">{panels}</div>{note}'
    return section("Curves", body, evaluations(rows, best_step), panel=False)


def _panel(name: str, splits: Mapping[str, Series], best_step: int | None) -> str:
    title = shown(words(name))
    drawn = [_drawn(split, series) for split, series in splits.items()]
    values = np.concatenate([each.shown for each in drawn])
    if not values.size:
        return _figure(title, "", '<p class="muted">no finite value</p>')
    upwards = curve_scale(name, float(values.min()), float(values.max()))
    ends = [float(each.series.steps.max()) for each in drawn]
    across = step_scale(max([*ends, 0.0 if best_step is None else best_step]))
    lines = "".join(_line(name, each, upwards, across) for each in drawn)
    if best_step is not None:
        place = across.at(best_step)
        lines += polyline([(place, 0), (place, 1)], "best", f"best step {best_step:,}")
    keys = "".join(f"<li>{key(each.line, each.mark)}{escape(each.label)}</li>" for each in drawn)
    return _figure(
        title,
        "logarithmic" if upwards.is_log else "",
        f'<ul class="legend">{keys}</ul>'
        + step_chart(lines, _description(name, title, splits), upwards, across),
    )


def _figure(title: str, scale: str, body: str) -> str:
    said = f'<span class="muted">, {scale}</span>' if scale else ""
    name = escape(title[:1].upper() + title[1:])
    return f'<figure class="panel"><figcaption>{name}{said}</figcaption>{body}</figure>'


def _drawn(split: str, series: Series) -> _Drawn:
    kind = split if split in _SPLITS else "other"
    if split == "train" and series.steps.size >= _SMOOTHED and series.is_noisy:
        mean = smooth(series.values, window=max(2.0, series.steps.size / 50))
        reached = np.concatenate([mean, np.quantile(series.finite, _USUAL)])
        line = Series(series.steps, mean).thinned(_SMOOTH_POINTS)
        return _Drawn("train, smoothed", kind, "", line, series.thinned(_POINTS), reached)
    if series.steps.size > _MARKED:
        # A line of another form, so that splits differ in print and to every eye.
        line = f"{kind} plain"
        return _Drawn(shown(split), line, "", series.thinned(_POINTS), None, series.finite)
    return _Drawn(shown(split), kind, f"mark {kind}", series, None, series.finite)


def _line(name: str, drawn: _Drawn, upwards: Scale, across: Scale) -> str:
    parts = []
    if drawn.behind is not None:
        parts += [
            polyline(some, f"{drawn.line} raw") for some in _runs(drawn.behind, upwards, across)
        ]
    runs = _runs(drawn.series, upwards, across)
    parts += [polyline(some if len(some) > 1 else some * 2, drawn.line) for some in runs]
    if drawn.mark:
        titles = [
            f"{drawn.label}, step {step:,.0f}: {metric(name, value)}"
            for step, value in zip(*map(np.ndarray.tolist, drawn.series), strict=True)
            if value == value
        ]
        parts.append(marks([place for some in runs for place in some], titles, drawn.mark))
    return "".join(parts)


def _runs(series: Series, upwards: Scale, across: Scale) -> list[list[tuple[float, float]]]:
    """The places of a series, in pieces where a value between them is not finite."""
    found: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
        if value == value:
            found[-1].append((across.at(step), upwards.beyond(value)))
        elif found[-1]:
            found.append([])
    return [some for some in found if some]


def _description(name: str, title: str, splits: Mapping[str, Series]) -> str:
    """In words what a curve shows to those who see it."""
    said = []
    for split, series in splits.items():
        finite: Sequence[float] = series.finite.tolist()
        if finite:
            first, last = metric(name, finite[0]), metric(name, finite[-1])
            said.append(f"{shown(split)} from {first} to {last}" if len(finite) > 1 else
                        f"{shown(split)} {last}")  # fmt: skip
    return f"{title} over the steps: {', '.join(said)}"
