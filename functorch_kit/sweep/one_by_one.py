"""A group's jobs one after another, through one compiled program."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from functorch_kit import report, train
from functorch_kit.loop import fit
from functorch_kit.programs import compile_programs
from functorch_kit.run import Interrupted
from functorch_kit.sweep.identity import mark
from functorch_kit.sweep.job import Job
from functorch_kit.sweep.orders import Orders
from functorch_kit.sweep.plan import Group, experiments


def run_one_by_one(group: Group, jobs: Sequence[Job], orders: Orders) -> int:
    """Run a group's jobs to their ends.

    Args:
        group: what they have in common.
        jobs: those that are not done.
        orders: what the sweep was asked for.

    Returns:
        How often a train step was compiled.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the job under way is saved.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.plan import planned
        >>> jobs = [Job(seed, Config(model=MLP(hidden=(8,)), seed=seed)) for seed in range(2)]
        >>> for job in jobs:
        ...     job.config.train.steps = 5
        >>> [group] = planned([job.config for job in jobs], [(0, 1)], mode="one_by_one")
        >>> run_one_by_one(group, jobs, Orders(1 << 30, (), None, False, print, []))
        job 0: finished at step 5
        job 1: finished at step 5
        1
    """
    programs = None
    for job, experiment in zip(jobs, experiments(group, [job.config for job in jobs]), strict=True):
        arguments = experiment.fit_arguments()
        if programs is None:
            programs = compile_programs(
                experiment.model,
                experiment.objective,
                experiment.optimizer,
                experiment.data,
                train.as_hparams(experiment.hparams, experiment.options.policy.params),
                jax.random.key(0),
                options=experiment.options,
                form=arguments["form"],
                best=arguments["best"][0],
                console=report.RunConsole(experiment.data.name, arguments["steps"], quiet=True),
            )
        if job.folder:
            mark(job.folder, {"identity": job.identity})
        arguments |= {
            "run_dir": job.folder,
            "resume": job.folder is not None,
            "overwrite": False,
            "quiet": True,
            "stop": orders.stop(arguments["stop"], job),
            "programs": programs.on(experiment.data),
        }
        try:
            job.result = fit(**arguments)
            job.summary, job.status = job.result.summary, job.result.summary["status"]
        except train.NonFinite:
            job.read()
            job.status = "diverged"
        except Interrupted:
            job.read()
            raise
        orders.ended(job)
    return 0 if programs is None else 1
