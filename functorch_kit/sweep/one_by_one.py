"""A group's jobs one after another, through one compiled program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from functorch_kit import report, train
from functorch_kit.compiled import compile_programs
from functorch_kit.loop import fit
from functorch_kit.run import Interrupted
from functorch_kit.sweep.identity import mark
from functorch_kit.sweep.job import Job
from functorch_kit.sweep.plan import Group, arguments_of
from functorch_kit.sweep.request import Request


def run_one_by_one(group: Group, jobs: Sequence[Job], request: Request) -> int:
    """Run a group's jobs to their ends.

    Args:
        group: what they have in common.
        jobs: those that are not done.
        request: what is asked of the whole sweep.

    Returns:
        How often a train step was compiled.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the job under way is saved.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> from functorch_kit.sweep.plan import planned
        >>> configs = [Config(model=MLP(hidden=(8,)), seed=seed) for seed in range(2)]
        >>> for config in configs:
        ...     config.train.steps = 5
        >>> jobs = [Job(number, asked(config)) for number, config in enumerate(configs)]
        >>> [group] = planned([job.asked for job in jobs], [(0, 1)], mode="one_by_one")
        >>> run_one_by_one(group, jobs, Request(1 << 30, (), None, False, print, []))
        job 0: finished at step 5
        job 1: finished at step 5
        1
    """
    programs = None
    each = arguments_of(group, [job.asked for job in jobs])
    for job, arguments in zip(jobs, each, strict=True):
        data, options = arguments["data"], arguments["options"]
        if programs is None:
            programs = compile_programs(
                arguments["model"],
                arguments["objective"],
                arguments["optimizer"],
                data,
                train.as_hparams(arguments["hparams"], options.policy.params),
                jax.random.key(0),
                options=options,
                form=arguments["form"],
                best=arguments["best"][0],
                nonfinite=arguments["nonfinite"],
                console=report.RunConsole(data.name, arguments["steps"], quiet=True),
            )
        if job.folder:
            mark(job.folder, {"identity": job.identity})
        own: dict[str, Any] = {
            "run_dir": job.folder,
            "resume": job.folder is not None,
            "quiet": True,
            "stop": request.stop(arguments["stop"], job),
            "programs": programs.on(data),
        }
        try:
            job.result = fit(**arguments | own)
            job.summary, job.status = job.result.summary, job.result.summary["status"]
        except train.NonFinite:
            job.read()
            job.status = "diverged"
        except Interrupted:
            job.read()
            raise
        request.ended(job)
    return 0 if programs is None else 1
