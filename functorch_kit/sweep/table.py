"""What a sweep says of itself: the split before it runs, and the table afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from functorch_kit import report
from functorch_kit.report import quantities
from functorch_kit.report.records import strict
from functorch_kit.sweep.asked import Asked
from functorch_kit.sweep.job import Job
from functorch_kit.sweep.plan import LANES, Group


def varied(jobs: Sequence[Asked]) -> list[dict[str, Any]]:
    """Of each job those settings, by dotted name, that are not the same in all.

    Example:
        >>> from functorch_kit.config import SGD, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> varied([asked(Config(optimizer=SGD(rate))) for rate in (0.1, 0.2)])
        [{'optimizer.learning_rate': 0.1}, {'optimizer.learning_rate': 0.2}]
    """
    flat = [dict(_flat("", job.settings)) for job in jobs]
    names = {name: None for each in flat for name in each}
    # A setting that only some have belongs to another choice, which differs as well.
    differ = [name for name in names if len({json.dumps(each.get(name)) for each in flat}) > 1]
    return [{name: each[name] for name in differ if name in each} for each in flat]


def plan_lines(jobs: Sequence[Job], groups: Sequence[Group]) -> list[str]:
    """The split in words: which jobs share a program, how they run, and what that will take.

    Example:
        >>> from functorch_kit.config import Config
        >>> from functorch_kit.sweep.asked import asked
        >>> plan_lines([Job(0, asked(Config()), status="finished")], [])
        ['1 job: 1 done before, 0 to run; compiles: 0']
    """
    todo = sum(len(group.jobs) for group in groups)
    noun = "job" if len(jobs) == 1 else "jobs"
    lines = [
        f"{len(jobs)} {noun}: {len(jobs) - todo} done before, {todo} to run;"
        f" compiles: {len(groups)}"
    ]
    settings = varied([job.asked for job in jobs])
    for number, group in enumerate(groups, 1):
        traced = sorted(
            {
                name
                for name in settings[group.jobs[0]]
                if len({json.dumps(settings[job].get(name)) for job in group.jobs}) > 1
            }
        )
        if group.how == LANES:
            size = quantities.size(group.lanes * group.lane_bytes)
            how = f"{group.chunks} × {group.lanes} lanes {LANES}, about {size}"
        else:
            how = f"{len(group.jobs)} {group.how} ({group.why})"
        over = f" over {', '.join(traced)}" if traced else ""
        static = {name: settings[group.jobs[0]][name] for name in settings[group.jobs[0]]}
        fixed = ", ".join(f"{name}={static[name]}" for name in static if name not in traced)
        lines.append(f"program {number}: {how}{over}{f'; {fixed}' if fixed else ''}")
    return lines


def write(
    folder: Path,
    jobs: Sequence[Job],
    judged: tuple[str, str],
    lines: Sequence[str],
    compiles: int,
    seconds: float,
) -> None:
    """Write ``sweep.json``, and the table and the page that are made of it.

    Args:
        folder: of the sweep.
        jobs: all of them.
        judged: by which metric, and ``"min"`` or ``"max"``.
        lines: see ``plan_lines``.
        compiles: train steps that were compiled.
        seconds: wall-clock time.
    """
    metric, mode = judged
    settings = varied([job.asked for job in jobs])
    found: dict[str, Any] = {
        "metric": metric,
        "mode": mode,
        "seconds": seconds,
        "compiles": compiles,
        "plan": list(lines),
        "jobs": [
            {
                "number": job.number,
                "folder": job.folder.name if job.folder else None,
                "settings": settings[job.number],
                "status": job.status,
                "summary": job.summary,
            }
            for job in jobs
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "sweep.json.part"
    draft.write_text(json.dumps(strict(found), indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / "sweep.json")
    report.write_sweep(folder, found, {job.number: job.rows() for job in jobs})


def _flat(prefix: str, values: Mapping[str, Any]):
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
