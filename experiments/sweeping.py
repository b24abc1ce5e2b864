"""Many runs at once: what ``train.py`` does for the launcher ``lanes``."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import frame

from functorch_kit.config import Config, ConfigError, better

if TYPE_CHECKING:
    from functorch_kit.report.sweep_jobs import Sweep


def run_all(configs: Sequence[Config], jobs: frame.Jobs) -> list[frame.Answer]:
    """Train every configuration in the multirun's folder, as ``sweep.run`` does it.

    Args:
        configs: the jobs; those of earlier batches among them are done, and not run again.
        jobs: the folder, and the launcher's settings.

    Returns:
        What each job is judged by; NaN, and that it failed, where it diverged.
    """
    options, is_quiet = jobs.options, all(config.quiet for config in configs)
    criterion = _criterion(configs) if options["halving_first"] else None
    _make_devices(options["devices"])
    from functorch_kit import sweep
    from functorch_kit.report.sweep_jobs import judgement, read_sweep

    halving = None
    if criterion:
        halving = sweep.SuccessiveHalving(
            options["halving_first"], options["halving_factor"], *criterion
        )
    if not is_quiet:
        print(f"sweep folder: {jobs.folder}")
    result = sweep.run(
        configs,
        jobs.folder,
        mode=options["mode"],
        memory=None if options["memory"] is None else int(options["memory"] * 2**30),
        devices=options["devices"],
        halving=halving,
        compact=options["compact"],
        say=None if is_quiet else print,
    )
    table = json.loads((jobs.folder / "sweep.json").read_text(encoding="utf-8"))
    values = [
        math.nan
        if job.status == "diverged"
        else judgement(job.summary, job.rows(), table["metric"])
        for job in result.jobs
    ]
    judged = read_sweep(table, lambda job: result.jobs[job.number].rows())
    print(_last_line(judged, str(jobs.folder)))
    return [
        frame.Answer(value, job.status == "diverged")
        for job, value in zip(result.jobs, values, strict=True)
    ]


def _criterion(configs: Sequence[Config]) -> tuple[str, str]:
    """By which metric of validation halving compares jobs, and which way is better."""
    found = {(each.train.best, better(each.train.best, each.train.best_mode)) for each in configs}
    if len(found) > 1:
        raise ConfigError(
            "hydra.launcher.halving_first compares jobs by train.best: give all jobs the same"
        )
    return found.pop()


def _make_devices(count: int | None) -> None:
    """A CPU is as many devices as it is told to be, before anything has been computed.

    Here, and not in the plugin: this is the last place that comes before the first computation and
    knows what was asked for. Other kinds of devices are what they are.
    """
    import jax

    is_said = getattr(jax.config, "jax_num_cpu_devices", -1) != -1
    is_said |= "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count is None or is_said:
        return  # as the user, or a batch before this one, had it
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"hydra.launcher.devices is {count}, too late: {first}") from error


def _last_line(found: Sweep, folder: str) -> str:
    """``3 jobs: 2 finished, 1 diverged · best: job 1, accuracy 0.98 (seed=1) · sweep: runs/a``."""
    ends = Counter(job.status for job in found.jobs)
    parts = [
        f"{len(found.jobs)} {'job' if len(found.jobs) == 1 else 'jobs'}: "
        + ", ".join(f"{count} {status}" for status, count in ends.items())
    ]
    if found.ranked:
        best = found.ranked[0]
        shown = f"{best.value:.4f}" if found.metric.name == "accuracy" else f"{best.value:.6g}"
        settings = ", ".join(f"{name}={each}" for name, each in best.settings.items())
        of = f" ({settings})" if settings else ""
        parts.append(f"best: job {best.number}, {found.metric.label} {shown}{of}")
    return " · ".join([*parts, f"sweep: {folder}"])
