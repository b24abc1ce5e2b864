"""``sweep.run``: many jobs, as few programs as there can be."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from functorch_kit import program
from functorch_kit.config import Config
from functorch_kit.errors import UserError
from functorch_kit.run import Interrupted, interruptible
from functorch_kit.sweep import plan, table
from functorch_kit.sweep.asked import Asked, asked
from functorch_kit.sweep.halving import SuccessiveHalving
from functorch_kit.sweep.identity import content_digest, identity, program_digest
from functorch_kit.sweep.job import Job, placed
from functorch_kit.sweep.one_by_one import run_one_by_one
from functorch_kit.sweep.plan import Group
from functorch_kit.sweep.request import Request
from functorch_kit.sweep.side_by_side import run_side_by_side


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What ``run`` returns.

    Attributes:
        jobs: in the order in which they were given.
        groups: how they were run; without those that had been done before.
        compiles: train steps that were compiled.
        seconds: wall-clock time.
        folder: the sweep's folder, if it has one.
    """

    jobs: tuple[Job, ...]
    groups: tuple[Group, ...]
    compiles: int
    seconds: float
    folder: Path | None


def run(
    jobs: Sequence[Config | Mapping[str, Any]],
    folder: str | Path | None = None,
    *,
    mode: str = "auto",
    memory: int | None = None,
    devices: int | None = None,
    halving: SuccessiveHalving | None = None,
    compact: bool = False,
    say: Callable[[str], None] | None = print,
) -> SweepResult:
    """Train every job; those that differ in numbers only share a compiled program.

    Where it pays they run side by side, as lanes of one program: on a CPU, not where there are
    convolutions. Each job is an ordinary run, in a folder of its own that can be resumed, evaluated
    and exported alone. A job that the folder holds already, known by its settings, its program and
    its data, is not run again; one that was interrupted goes on.

    Args:
        jobs: configurations, or arguments of ``fit`` by name: those that are the same objects but
            for their ``hparams``, their ``seed`` and the order of their data share a program.
        folder: where their run folders go, named by number, and the sweep's own table and page.
            Nothing is written if None.
        mode: ``"lanes"``, ``"one_by_one"``, or ``"auto"``.
        memory: bytes that a program may take on a device; by default what is free.
        devices: to split the lanes over; by default all there are.
        halving: ends most jobs early, see ``SuccessiveHalving``.
        compact: compile again for fewer lanes when half of them have ended.
        say: is told the plan, before anything runs, and how far it is; silent if None.

    Returns:
        A SweepResult. A job that diverged is one of its jobs, and no error.

    Raises:
        UserError: jobs or folders that cannot be used.
        Interrupted: SIGINT or SIGTERM came; what was under way is saved.

    Example:
        >>> from functorch_kit import config, sweep
        >>> small = config.MLP(hidden=(8,))
        >>> jobs = [config.Config(model=small, optimizer=config.SGD(rate)) for rate in (0.1, 0.5)]
        >>> for job in jobs:
        ...     job.train.steps = 20
        >>> result = sweep.run(jobs, say=None)
        >>> [job.status for job in result.jobs], result.compiles
        (['finished', 'finished'], 1)
    """
    began = time.perf_counter()
    if not jobs:
        raise UserError("a sweep of no jobs: give one or more")
    wanted = [asked(job) for job in jobs]
    say = say or (lambda line: None)
    program.use_cache()
    where = None if folder is None else Path(folder)
    used = _devices(devices)
    memory = plan.free_memory() if memory is None else memory
    limits: dict[str, Any] = {
        "memory": memory,
        "devices": used,
        "most": plan.open_files() if where else None,
    }
    whole = plan.planned(wanted, plan.grouped(wanted), mode=mode, **limits)
    found = placed(wanted, _identities(wanted, whole) if where else [], where)
    # Planned again without the jobs that are done, which may leave fewer lanes.
    groups = plan.without(whole, {job.number for job in found if job.is_done}, **limits)
    lines = table.plan_lines(found, groups)
    for line in lines:
        say(line)
    if halving:
        for job in found:
            halving.tell(job.number, [row for row in job.rows() if row["split"] == "validation"])
    compiles = 0
    try:
        with interruptible() as signals:
            local = jax.local_devices()[:used] if used > 1 else ()
            request = Request(memory, local, halving, compact, say, signals)
            for group in groups:
                execute = run_side_by_side if group.how == plan.LANES else run_one_by_one
                compiles += execute(group, [found[number] for number in group.jobs], request)
                if signals:
                    raise Interrupted(signals[0])
    finally:
        seconds = time.perf_counter() - began
        if where is not None:
            table.write(where, found, whole[0].judged, lines, compiles, seconds)
    return SweepResult(tuple(found), tuple(groups), compiles, seconds, where)


def _identities(jobs: Sequence[Asked], groups: Sequence[Group]) -> list[str]:
    found = [""] * len(jobs)
    for group in groups:
        of_program, of_data = program_digest(group.arguments), dict[int, str]()
        known: dict[int, bytes] = {}  # seeds differ in order, not in records
        each = plan.arguments_of(group, [jobs[number] for number in group.jobs])
        for number, arguments in zip(group.jobs, each, strict=True):
            data = arguments["data"]
            if id(data) not in of_data:
                parts = [data.train, data.validation, data.test, data.class_names]
                of_data[id(data)] = content_digest(parts, known)
            found[number] = identity(jobs[number].settings, of_program, of_data[id(data)])
    return found


def _devices(wanted: int | None) -> int:
    there = jax.local_device_count()
    if wanted is not None and not 1 <= wanted <= there:
        raise UserError(f"devices is {wanted}: give a number from 1 to {there}")
    return there if wanted is None else wanted
