"""Which jobs share a program: the ones that differ in numbers only."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from functorch_kit import program, train
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.sweep.asked import Arguments, Asked
from functorch_kit.sweep.rows import SideBySide

# Microseconds that a step takes, alone and as one of 8 lanes, on two cores (jax 0.10.2): an MLP of
# 2 × 128 193 and 160, of 2 × 256 528 and 451, of 2 × 512 (0.12 GFLOP) 1865 and 1248; but the digits
# CNN (0.5 GFLOP, most of it in products of 9 patches) 4550 and 5650. Over two devices, a core each,
# the lanes take 75, 246, 1148 and 5250.
_FILLS_A_CPU = 3e8

LANES, ONE_BY_ONE = "side by side", "one by one"


class Group(NamedTuple):
    """Jobs that one compiled program serves.

    Attributes:
        arguments: of ``fit``, for the first of them.
        judged: by which metric a person judges the runs, and ``"min"`` or ``"max"``.
        jobs: their numbers.
        how: ``"side by side"``, as lanes of one program; or ``"one by one"`` through it.
        why: why so.
        lanes: how many of them run side by side.
        lane_bytes: what a lane is expected to take of the device's memory.
    """

    arguments: Arguments
    judged: tuple[str, str]
    jobs: tuple[int, ...]
    how: str
    why: str
    lanes: int
    lane_bytes: int

    @property
    def chunks(self) -> int:
        """How often the program is filled with lanes."""
        return -(-len(self.jobs) // self.lanes)


def grouped(jobs: Sequence[Asked]) -> list[tuple[int, ...]]:
    """The numbers of the jobs that share a program, in order.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> wide, narrow = Config(model=MLP(hidden=(64,))), Config(model=MLP(hidden=(8,)))
        >>> jobs = [wide, narrow, Config(model=MLP(hidden=(64,)), seed=1)]
        >>> grouped([asked(job) for job in jobs])
        [(0, 2), (1,)]
    """
    found: dict[Hashable, list[int]] = {}
    for number, job in enumerate(jobs):
        found.setdefault(job.key, []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def planned(
    jobs: Sequence[Asked],
    groups: Sequence[tuple[int, ...]],
    *,
    mode: str = "auto",
    memory: int | None = None,
    devices: int = 1,
    most: int | None = None,
) -> list[Group]:
    """How each group of jobs is going to run.

    Args:
        jobs: all of them.
        groups: the numbers of each, see ``grouped``.
        mode: ``"lanes"``, ``"one_by_one"``, or ``"auto"``.
        memory: bytes that a program may take on a device; see ``free_memory``.
        devices: that the lanes are split over.
        most: lanes at a time, whatever the memory holds; see ``open_files``.

    Raises:
        UserError: a configuration that cannot be built, or an unknown mode.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> jobs = [asked(Config(model=MLP(hidden=(8,)), seed=seed)) for seed in range(3)]
        >>> [(group.how, group.lanes) for group in planned(jobs, grouped(jobs))]
        [('side by side', 3)]
    """
    if mode not in ("auto", "lanes", "one_by_one"):
        raise UserError(f"mode {mode!r} is not one of auto, lanes, one_by_one")
    memory = free_memory() if memory is None else memory
    return [_group(jobs, numbers, mode, memory, devices, most) for numbers in groups]


def without(
    groups: Sequence[Group],
    done: Collection[int],
    memory: int,
    devices: int,
    most: int | None = None,
) -> list[Group]:
    """The groups without the jobs that are done, and without those that have none left.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> jobs = [asked(Config(model=MLP(hidden=(8,)), seed=seed)) for seed in range(3)]
        >>> groups = planned(jobs, grouped(jobs))
        >>> [(group.jobs, group.lanes) for group in without(groups, {0}, 1 << 30, 1)]
        [((1, 2), 2)]
    """
    found = []
    for group in groups:
        left = tuple(job for job in group.jobs if job not in done)
        if left:
            lanes = 1
            if group.how == LANES:
                lanes = _lanes(group, len(left), memory, devices, most)
            found.append(group._replace(jobs=left, lanes=lanes))
    return found


def free_memory() -> int:
    """Bytes that a sweep may take: half of what the machine has to give, or most of the device's.

    Example:
        >>> free_memory() > 1 << 20
        True
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.8 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = dict(line.split(":") for line in lines)
        return int(known["MemAvailable"].split()[0]) * 1024 // 2
    except (OSError, KeyError, ValueError):
        return 4 << 30


def arguments_of(group: Group, jobs: Sequence[Asked]) -> list[Arguments]:
    """The arguments of ``fit`` for a group's jobs, with one set of data and functions.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> jobs = [asked(Config(model=MLP(hidden=(8,)), seed=seed)) for seed in (0, 1, 0)]
        >>> [group] = planned(jobs, grouped(jobs))
        >>> one, other, again = (each["data"] for each in arguments_of(group, jobs))
        >>> one is again, one.validation is other.validation
        (True, True)
    """
    data: dict[int, Data] = {}
    return [job.like(group.arguments, data) for job in jobs]


def _group(
    jobs: Sequence[Asked],
    numbers: tuple[int, ...],
    mode: str,
    memory: int,
    devices: int,
    most: int | None,
) -> Group:
    arguments, judged = jobs[numbers[0]].first()
    how, why = _how(arguments, len(numbers), mode)
    group = Group(arguments, judged, numbers, how, why, 1, _lane_bytes(arguments))
    if how == ONE_BY_ONE:
        return group
    return group._replace(lanes=_lanes(group, len(numbers), memory, devices, most))


def _lanes(group: Group, jobs: int, memory: int, devices: int, most: int | None) -> int:
    fit = max(1, memory // group.lane_bytes)
    return fitting(jobs, fit if most is None else max(1, min(fit, most // devices)), devices)


def fitting(jobs: int, most: int, devices: int = 1) -> int:
    """Lanes of a program: at most so many on each device, in chunks as equal as can be.

    Example:
        >>> fitting(100, 64), fitting(5, 64), fitting(5, 64, devices=2)
        (50, 5, 6)
    """
    chunks = -(-jobs // (most * devices))
    lanes = -(-jobs // chunks)
    return -(-lanes // devices) * devices


def _how(arguments: Arguments, jobs: int, mode: str) -> tuple[str, str]:
    if arguments["max_seconds"]:
        return ONE_BY_ONE, "max_seconds: the time that a lane takes is not its own"
    if arguments["nonfinite"] in ("skip", "rollback"):
        return ONE_BY_ONE, f"nonfinite={arguments['nonfinite']}: a lane cannot go back alone"
    if mode != "auto":
        return (LANES if mode == "lanes" else ONE_BY_ONE), "asked for"
    if jobs == 1:
        return ONE_BY_ONE, "there is one"
    if found := _slow_as_lanes(arguments):
        return ONE_BY_ONE, found
    return LANES, "the same operations, one axis more"


def open_files() -> int | None:
    """How many runs may have their files open at once; None where nobody counts.

    The limit is raised as far as the system lets a process do so.

    Example:
        >>> files = open_files()
        >>> files is None or files > 10
        True
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    # A log, an event file, a lock for the folder and for its checkpoints, and one being written.
    return max(1, (soft - 200) // 6)


def _slow_as_lanes(arguments: Arguments) -> str:
    """Why lanes of such a run would lose on this backend; empty if they would not."""
    values, key = _specs(arguments)
    options, spec = arguments["options"], arguments["data"].train.spec
    init = train.make_init(arguments["model"], arguments["optimizer"], spec["x"], options)
    state = jax.eval_shape(init, values, key)
    step = train.make_train_step(arguments["objective"], arguments["optimizer"], options)
    if train.slow_in_a_loop(step, values, state, spec):
        return "a CPU runs a convolution with a kernel for each lane many times slower"
    operations = program.flops(step, values, state, spec)
    if jax.default_backend() == "cpu" and operations > _FILLS_A_CPU:
        return f"a step of {operations / 1e9:.2g} GFLOP fills a CPU by itself"
    return ""


def _specs(arguments: Arguments) -> tuple[Any, Any]:
    values = train.as_hparams(arguments["hparams"], arguments["options"].policy.params)
    return values, jax.random.key(0)


def _lane_bytes(arguments: Arguments) -> int:
    """State, gradients and what is in between, before anything is compiled: a rough figure."""
    values, key = _specs(arguments)
    spec, options = arguments["data"].train.spec, arguments["options"]
    init = train.make_init(arguments["model"], arguments["optimizer"], spec["x"], options)
    with program.tracing("init", ("hparams", "key"), (values, key)):
        state = jax.eval_shape(init, values, key)
    leaves = [*jax.tree.leaves(state), *jax.tree.leaves(spec)]
    return 3 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def rows_of(pipelines: Sequence[Any], lanes: int) -> SideBySide:
    """The pipelines of a chunk's lanes; where there are fewer, the first one's fills the rest.

    Example:
        >>> from functorch_kit import data
        >>> digits = data.digits(batch_size=4).train
        >>> len(rows_of([digits, digits.seeded(1)], 3).pipelines)
        3
    """
    return SideBySide([*pipelines, *[pipelines[0]] * (lanes - len(pipelines))])
