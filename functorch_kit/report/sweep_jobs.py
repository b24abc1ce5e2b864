"""A sweep as its page and its table read it: jobs, what differs between them, which is best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from functorch_kit.report.quantities import as_number, words

Rows = Sequence[Mapping[str, Any]]

COMPLETE = ("finished", "stopped early", "pruned", "out of time")
"""How the jobs end that are compared; what diverged or was interrupted is only named."""
NO_SETTING = "–"
"""Shown where a job has no such setting, because another choice of the group has none."""
_NONFINITE = ("NaN", "Infinity", "-Infinity")  # as strict JSON holds them


class Job(NamedTuple):
    """A job of a sweep.

    Attributes:
        number: its place in the sweep.
        folder: its run folder, relative to the sweep's; None where nothing is written.
        settings: those that differ between the jobs, by dotted name.
        status: how it ended, or ``waiting``.
        summary: what its ``summary.json`` says.
        value: what it is judged by; None where there is none, or none that counts.
        loss: on the same part of the data, which decides between equal values; likewise.
    """

    number: int
    folder: str | None
    settings: Mapping[str, Any]
    status: str
    summary: Mapping[str, Any]
    value: float | None = None
    loss: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it came to an end that can be compared with others."""
        return self.status in COMPLETE


class Metric(NamedTuple):
    """What the jobs are judged by.

    Attributes:
        split: part of the data it was measured on; empty for a field that is of none.
        name: such as ``accuracy``.
        mode: ``"min"`` or ``"max"``.
        is_fallback: whether it stands in for one that no job has.
    """

    split: str
    name: str
    mode: str
    is_fallback: bool = False

    @property
    def label(self) -> str:
        """As a person calls it."""
        split = {"train": "training"}.get(self.split, self.split)
        return words(f"{split} {self.name}".strip())

    @property
    def sign(self) -> float:
        """By which values are multiplied so that smaller is better."""
        return 1.0 if self.mode == "min" else -1.0


class Sweep(NamedTuple):
    """A whole sweep.

    Attributes:
        jobs: by number.
        metric: what they are judged by.
        ranked: the jobs that have a value, the best first.
        names: the settings that differ, the seed last.
        seconds: how long it took; None if unknown.
        compiles: programs that were compiled; likewise.
        plan: the split into programs, in words.
    """

    jobs: tuple[Job, ...]
    metric: Metric
    ranked: tuple[Job, ...]
    names: tuple[str, ...]
    seconds: float | None
    compiles: float | None
    plan: tuple[str, ...]


def read_sweep(
    sweep: Mapping[str, Any],
    rows: Callable[[Job], Rows],
    metric: str | None = None,
    mode: str | None = None,
) -> Sweep:
    """A sweep from the fields of its ``sweep.json``.

    This is where it is decided which job is best. A metric is looked for in the validation part,
    then under its whole name (``test_accuracy``). Where no job has it, the training rows that were
    logged last count: one that was asked for here, or else the loss, which still tells jobs apart
    when all are right about what they have seen. Of equal values the one with the smaller loss is
    better, then the job that came first.

    Args:
        sweep: the fields.
        rows: the logged rows of a job.
        metric: what to judge by; what the sweep says if None.
        mode: ``"min"`` or ``"max"``; likewise.

    Returns:
        The sweep.

    Example:
        >>> fields = {"number": 0, "status": "finished", "summary": {"validation_loss": 0.5}}
        >>> found = read_sweep({"metric": "loss", "mode": "min", "jobs": [fields]}, lambda job: [])
        >>> found.metric.label, found.ranked[0].value
        ('validation loss', 0.5)
    """
    jobs = sorted((_job(fields) for fields in sweep.get("jobs") or ()), key=lambda job: job.number)
    asked = metric or str(sweep.get("metric") or "loss")
    mode = mode or ("max" if sweep.get("mode") == "max" else "min")
    judged = _metric(asked, mode, jobs)
    if judged is None:
        logged = {job.number: rows(job) for job in jobs}
        judged = Metric("train", "loss", "min", is_fallback=True)
        if metric and any(trained_value(each, metric) is not None for each in logged.values()):
            judged = Metric("train", metric, mode, is_fallback=True)
        jobs = [
            job._replace(
                value=_counting(job, trained_value(logged[job.number], judged.name)),
                loss=_counting(job, trained_value(logged[job.number], "loss")),
            )
            for job in jobs
        ]
    else:
        value, loss = (f"{judged.split}_{name}".lstrip("_") for name in (judged.name, "loss"))
        jobs = [
            job._replace(
                value=_counting(job, as_number(job.summary.get(value))),
                loss=_counting(job, as_number(job.summary.get(loss))),
            )
            for job in jobs
        ]

    def place(job: Job) -> tuple[float, float, int]:
        loss = math.inf if job.loss is None else job.loss
        return judged.sign * (job.value or 0.0), loss, job.number

    ranked = sorted((job for job in jobs if job.value is not None), key=place)
    return Sweep(
        tuple(jobs), judged, tuple(ranked), _names(jobs), as_number(sweep.get("seconds")),
        as_number(sweep.get("compiles")), tuple(str(line) for line in sweep.get("plan") or ()),
    )  # fmt: skip


def judgement(summary: Mapping[str, Any], rows: Rows, metric: str) -> float | None:
    """What a sweeper is told of one run: its metric on the validation part, at its best step.

    Without a validation part it is that of the training row that was logged last: of the same
    metric, because the sweeper was told which way that is better. The test part is never looked at:
    what is chosen by it has nothing left to be tested on.

    Args:
        summary: what its ``summary.json`` says.
        rows: its logged rows.
        metric: such as ``accuracy``.

    Returns:
        The value; None where there is none.

    Example:
        >>> rows = [{"step": 9, "split": "train", "loss": 0.5}]
        >>> judgement({"validation_loss": 0.7}, rows, "loss"), judgement({}, rows, "loss")
        (0.7, 0.5)
    """
    value = summary.get(f"validation_{metric}")
    return trained_value(rows, metric) if value is None else float(value)


def trained_value(rows: Rows, metric: str) -> float | None:
    """A metric in the training row that was logged last, of those that have it.

    Example:
        >>> rows = [{"split": "train", "loss": 0.5}, {"split": "validation", "loss": 0.7}]
        >>> trained_value(rows, "loss"), trained_value(rows, "accuracy")
        (0.5, None)
    """
    found = (as_number(row.get(metric)) for row in reversed(rows) if row.get("split") == "train")
    return next((value for value in found if value is not None), None)


def trained_names(rows: Rows) -> list[str]:
    """The metrics in the training row that was logged last.

    Example:
        >>> trained_names([{"step": 9, "split": "train", "loss": 0.5}])
        ['loss']
    """
    last = next((row for row in reversed(rows) if row.get("split") == "train"), {})
    return [name for name in last if name != "step" and as_number(last[name]) is not None]


def metric_names(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """What jobs can be judged by, those of validation by their short name first.

    Args:
        jobs: as they stand in ``sweep.json``.

    Example:
        >>> metric_names([{"summary": {"test_loss": 1.0, "validation_loss": 2.0, "status": "x"}}])
        ['loss', 'test_loss', 'validation_loss']
    """
    found = {
        name
        for fields in jobs
        for name, value in _restored(fields.get("summary") or {}).items()
        if as_number(value) is not None
    }
    short = {name.removeprefix("validation_") for name in found if name.startswith("validation_")}
    return [*sorted(short), *sorted(found - short)]


def is_seed(name: str) -> bool:
    """Whether jobs that differ in this setting alone are the same job, drawn again.

    Example:
        >>> is_seed("seed"), is_seed("optimizer.learning_rate")
        (True, False)
    """
    return name.rpartition(".")[2] == "seed"


def over_seeds(sweep: Sweep) -> list[list[Job]]:
    """The jobs in groups that differ in seed alone.

    Args:
        sweep: whose.

    Returns:
        The groups, the one with the best mean first; those where no job has a value come last.

    Example:
        >>> jobs = [{"number": n, "settings": {"a": n // 2, "seed": n % 2}} for n in range(4)]
        >>> sweep = read_sweep({"jobs": jobs}, lambda job: [])
        >>> [[job.number for job in group] for group in over_seeds(sweep)]
        [[0, 1], [2, 3]]
    """
    groups: dict[str, list[Job]] = {}
    for job in sweep.jobs:
        rest = {name: value for name, value in job.settings.items() if not is_seed(name)}
        groups.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(job)

    def place(group: list[Job]) -> tuple[bool, float, int]:
        values = [job.value for job in group if job.value is not None]
        mean = mean_of(values) if values else 0.0
        return not values, sweep.metric.sign * mean, group[0].number

    return sorted(groups.values(), key=place)


def mean_of(values: Sequence[float]) -> float:
    """The mean, of large values as well as of small ones.

    Example:
        >>> mean_of([1.0, 2.0]), mean_of([1e308, 1e308])
        (1.5, 1e+308)
    """
    return math.fsum(value / len(values) for value in values)


def spread_of(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample, or None where there are too few for one.

    Example:
        >>> spread_of([1.0, 3.0]), spread_of([1.0])
        (1.4142135623730951, None)
    """
    if len(values) < 2:
        return None
    # A power of two, which rounds nothing: the squares of large values would be too large.
    mean, scale = mean_of(values), math.ldexp(0.5, math.frexp(max(map(abs, values)))[1])
    squares = math.fsum((value / scale - mean / scale) ** 2 for value in values)
    return scale * math.sqrt(squares / (len(values) - 1))


def _job(fields: Mapping[str, Any]) -> Job:
    folder = fields.get("folder")
    return Job(
        int(fields.get("number", 0)),
        None if folder is None else str(folder),
        _restored(fields.get("settings") or {}),
        str(fields.get("status") or "waiting"),
        _restored(fields.get("summary") or {}),
    )


def _restored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): float(value) if value in _NONFINITE else value for name, value in values.items()
    }


def _metric(asked: str, mode: str, jobs: Sequence[Job]) -> Metric | None:
    for key in (f"validation_{asked}", asked):
        if any(as_number(job.summary.get(key)) is not None for job in jobs):
            split, sign, name = key.partition("_")
            if sign and split in ("validation", "test", "train"):
                return Metric(split, name, mode)
            return Metric("", key, mode)
    return None


def _counting(job: Job, value: float | None) -> float | None:
    """A job's value if it can be compared: of one that came to its end, and finite."""
    return value if job.is_complete and value is not None and math.isfinite(value) else None


def _names(jobs: Sequence[Job]) -> tuple[str, ...]:
    names = dict.fromkeys(name for job in jobs for name in job.settings)
    return tuple(sorted(names, key=is_seed))  # stable: otherwise in the order of the jobs
