"""The marginal effect of each setting: the metric for each of its values, over all the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_kit.report.drawings import evenly_chosen
from functorch_kit.report.labels import by_size, short, shown, value_text
from functorch_kit.report.markup import escape
from functorch_kit.report.quantities import MISSING, as_number, metric
from functorch_kit.report.scales import Scale, metric_scale
from functorch_kit.report.sweep_jobs import (
    NO_SETTING,
    Job,
    Sweep,
    mean_of,
    spread_of,
)
from functorch_kit.report.sweep_overrides import setting_label

MOST_SETTINGS = 24
_MOST_VALUES, _BINS, _MOST_DOTS = 12, 8, 40


class Effect(NamedTuple):
    """What came of one value of a setting, whatever the other settings were.

    Attributes:
        label: the value, or the range of values.
        values: of the metric, of the jobs that have one.
        without: how many jobs came to an end, or diverged, without one.
    """

    label: str
    values: tuple[float, ...]
    without: int

    @property
    def mean(self) -> float | None:
        """The mean of the values."""
        return mean_of(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Their standard deviation, of a sample."""
        return spread_of(self.values)

    def best(self, mode: str) -> float | None:
        """The best of the values."""
        return (min if mode == "min" else max)(self.values, default=None)


def effects_of(sweep: Sweep, name: str) -> tuple[list[Effect], str]:
    """The effect of each value of a setting.

    Args:
        sweep: whose.
        name: of the setting. Many different numbers are put together in ranges of as many jobs.

    Returns:
        The effects, in the order of the values; and what was left out, or an empty text.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> jobs = [
        ...     {"number": n, "settings": {"a": n % 2}, "status": "finished",
        ...      "summary": {"validation_loss": float(n)}}
        ...     for n in range(4)
        ... ]
        >>> sweep = read_sweep({"metric": "loss", "jobs": jobs}, lambda job: [])
        >>> effects, _ = effects_of(sweep, "a")
        >>> [(effect.label, effect.mean, effect.best("min")) for effect in effects]
        [('0', 1.0, 0.0), ('1', 2.0, 1.0)]
    """
    jobs = [job for job in sweep.jobs if job.is_complete or job.status == "diverged"]
    numbers = {job.number: as_number(job.settings.get(name)) for job in jobs}
    plain = [job for job in jobs if (n := numbers[job.number]) is not None and math.isfinite(n)]
    by_text: dict[str, list[Job]] = {}
    for job in jobs:
        by_text.setdefault(value_text(job.settings.get(name, NO_SETTING)), []).append(job)
    if len({numbers[job.number] for job in plain}) > _MOST_VALUES:
        ordered = sorted(plain, key=lambda job: numbers[job.number] or 0.0)
        found = _ranges(ordered, name)
        found += [_effect(short(text), some) for text, some in by_text.items()
                  if numbers[some[0].number] is None]  # fmt: skip
    else:

        def place(text: str) -> tuple[bool, float, Any]:
            number = numbers[by_text[text][0].number]
            return number is None, number or 0.0, by_size(text)

        found = [
            _effect(short(by_text[text][0].settings.get(name, NO_SETTING)), by_text[text])
            for text in sorted(by_text, key=place)
        ]
    if len(found) <= _MOST_VALUES:
        return found, ""
    sign = sweep.metric.sign
    ranked = sorted(found, key=lambda e: math.inf if e.mean is None else sign * e.mean)
    kept = {id(effect) for effect in ranked[:_MOST_VALUES]}
    left = f"{len(found) - _MOST_VALUES:,} further values have a worse mean and are not shown."
    return [effect for effect in found if id(effect) in kept], left


def marginal_effects(sweep: Sweep) -> str:
    """A dot plot and a table for each setting.

    Args:
        sweep: whose.

    Returns:
        HTML; empty where nothing differs or no job has a value.

    Example:
        >>> from functorch_kit.report.sweep_jobs import read_sweep
        >>> marginal_effects(read_sweep({}, lambda job: []))
        ''
    """
    if not sweep.names or not sweep.ranked:
        return ""
    values = [job.value for job in sweep.ranked if job.value is not None]
    scale = metric_scale(sweep.metric.name, values, sweep.metric.mode)
    panels = "".join(_panel(sweep, name, scale) for name in sweep.names[:MOST_SETTINGS])
    note = (
        "Each row takes all jobs with that value, whatever their other settings. Dots are jobs,"
        " better ones further right; the bar is mean ± standard deviation, the diamond the best."
    )
    if scale.is_log:
        note += " The scale is logarithmic."
    if len(sweep.names) > MOST_SETTINGS:
        note += f" The first {MOST_SETTINGS} of {len(sweep.names)} settings are shown."
    return f'<div class="effects">{panels}</div><p class="note">{escape(note)}</p>'


def _panel(sweep: Sweep, name: str, scale: Scale) -> str:
    effects, left = effects_of(sweep, name)
    judged, fails = sweep.metric, any(effect.without for effect in effects)
    worst, best = (metric(judged.name, job.value) for job in (sweep.ranked[-1], sweep.ranked[0]))
    ends = f"<span>{escape(worst)}</span><span>{escape(best)}</span>"
    names = ["jobs", "mean", "spread", "best", *(["no value"] if fails else [])]
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(_row(effect, scale, judged.name, judged.mode, fails) for effect in effects)
    note = f'<p class="note">{escape(left)}</p>' if left else ""
    return (
        f'<div class="panel"><h3>{escape(shown(setting_label(name)))}</h3><div class="scroll">'
        f'<table class="data effect"><thead><tr><th scope="col"></th>'
        f'<th scope="col" class="strip"><span class="ends">{ends}</span></th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>{note}</div>"
    )


def _row(effect: Effect, scale: Scale, name: str, mode: str, fails: bool) -> str:
    cells = [
        f"{len(effect.values) + effect.without:,}",
        metric(name, effect.mean),
        MISSING if effect.spread is None else metric(name, effect.spread),
        metric(name, effect.best(mode)),
        *([f"{effect.without:,}" if effect.without else ""] if fails else []),
    ]
    return (
        f'<tr><th scope="row">{escape(effect.label)}</th>'
        f'<td class="strip">{_strip(effect, scale, mode)}</td>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _strip(effect: Effect, scale: Scale, mode: str) -> str:
    """The jobs of a row on the metric's scale: in per cent of a width that the page decides."""
    if not effect.values:
        return ""
    mean, spread, best = effect.mean or 0.0, effect.spread or 0.0, effect.best(mode)
    dots = "".join(
        f'<circle class="dot" cx="{_percent(scale, value)}" cy="50%" r="3"/>'
        for value in evenly_chosen(sorted(effect.values), _MOST_DOTS)
    )
    left, right = sorted((_percent(scale, mean - spread), _percent(scale, mean + spread)),
                         key=lambda text: float(text[:-1]))  # fmt: skip
    bar = f'<line class="bar" x1="{left}" x2="{right}" y1="50%" y2="50%"/>' if spread else ""
    return (
        f'<svg class="dots" aria-hidden="true">{dots}{bar}'
        f'<circle class="mean" cx="{_percent(scale, mean)}" cy="50%" r="4.5"/>'
        f'<svg class="best" x="{_percent(scale, best)}" y="50%"><path d="M0-6 6 0 0 6-6 0z"/></svg>'
        "</svg>"
    )


def _percent(scale: Scale, value: float | None) -> str:
    place = scale.at(value)
    return f"{4 + 92 * place:.3g}%"  # the outermost dots are whole


def _effect(label: str, jobs: Sequence[Job]) -> Effect:
    values = tuple(job.value for job in jobs if job.value is not None)
    return Effect(label, values, len(jobs) - len(values))


def _ranges(ordered: Sequence[Job], name: str) -> list[Effect]:
    """Numbers in ranges that hold about as many jobs each."""
    cuts = [round(index * len(ordered) / _BINS) for index in range(_BINS + 1)]
    found = []
    for start, end in itertools.pairwise(cuts):
        if some := ordered[start:end]:
            low, high = (f"{as_number(some[index].settings[name]):.3g}" for index in (0, -1))
            found.append(_effect(low if low == high else f"{low} to {high}", some))
    return found
