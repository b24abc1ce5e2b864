"""A sweep as its page and its table read it: jobs, what differs between them, which is best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from functorch_kit.report.quantities import as_number, words

Rows = Sequence[Mapping[str, Any]]

COMPLETE = ("finished", "stopped early", "out of time")
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
    """

    number: int
    folder: str | None
    settings: Mapping[str, Any]
    status: str
    summary: Mapping[str, Any]
    value: float | None = None

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

    A metric is looked for in the validation part, then under its whole name (``test_accuracy``).
    Where no job has it, the jobs are judged by the last training loss that they logged.

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
    if judged.is_fallback:
        jobs = [job._replace(value=_training_loss(job, rows(job))) for job in jobs]
    else:
        key = f"{judged.split}_{judged.name}".lstrip("_")
        jobs = [job._replace(value=as_number(job.summary.get(key))) for job in jobs]
    jobs = [job._replace(value=_counting(job)) for job in jobs]
    ranked = sorted(
        (job for job in jobs if job.value is not None),
        key=lambda job: (judged.sign * (job.value or 0.0), job.number),
    )
    return Sweep(
        tuple(jobs), judged, tuple(ranked), _names(jobs), as_number(sweep.get("seconds")),
        as_number(sweep.get("compiles")), tuple(str(line) for line in sweep.get("plan") or ()),
    )  # fmt: skip


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


def value_text(value: Any) -> str:
    """A setting's or a metric's value as text that can be read back.

    Args:
        value: a number, a string, a boolean, None, or a list or dict of these.

    Returns:
        Strings as they are, lists as JSON, numbers so that they parse back exactly.

    Example:
        >>> [value_text(value) for value in (1e-05, True, None, [64, 32], "a", float("nan"))]
        ['1e-05', 'true', 'null', '[64,32]', 'a', 'NaN']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


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


def _metric(asked: str, mode: str, jobs: Sequence[Job]) -> Metric:
    for key in (f"validation_{asked}", asked):
        if any(as_number(job.summary.get(key)) is not None for job in jobs):
            split, sign, name = key.partition("_")
            if sign and split in ("validation", "test", "train"):
                return Metric(split, name, mode)
            return Metric("", key, mode)
    return Metric("train", "loss", "min", is_fallback=True)


def _training_loss(job: Job, rows: Rows) -> float | None:
    found = (as_number(row.get("loss")) for row in reversed(rows) if row.get("split") == "train")
    return next((value for value in found if value is not None), None)


def _counting(job: Job) -> float | None:
    """A job's value if it can be compared: of one that came to its end, and finite."""
    value = job.value
    return value if job.is_complete and value is not None and math.isfinite(value) else None


def _names(jobs: Sequence[Job]) -> tuple[str, ...]:
    names = dict.fromkeys(name for job in jobs for name in job.settings)
    return tuple(sorted(names, key=is_seed))  # stable: otherwise in the order of the jobs
