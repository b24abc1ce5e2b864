"""A group's jobs as lanes of one program."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit import report, train
from functorch_kit.lane import Lane, plan_of
from functorch_kit.loop import conclude, describe_failure, write
from functorch_kit.record import Record
from functorch_kit.run import RunFolder
from functorch_kit.sweep.asked import Arguments
from functorch_kit.sweep.chunk import Chunk
from functorch_kit.sweep.identity import mark
from functorch_kit.sweep.job import Job
from functorch_kit.sweep.lanes import LanePrograms, compile_lanes, stacked, taken
from functorch_kit.sweep.plan import Group, arguments_of, fitting, rows_of
from functorch_kit.sweep.request import Request


def run_side_by_side(group: Group, jobs: Sequence[Job], request: Request) -> int:
    """Run a group's jobs to their ends, as many at a time as the memory holds.

    Args:
        group: what they have in common.
        jobs: those that are not done.
        request: what is asked of the whole sweep.

    Returns:
        How often a train step was compiled: once, but for a program that turned out not to fit,
        and for fewer lanes where that was asked for.

    Example:
        >>> from functorch_kit.config import MLP, Config
        >>> from functorch_kit.sweep.asked import asked
        >>> from functorch_kit.sweep.plan import planned
        >>> configs = [Config(model=MLP(hidden=(8,)), seed=seed) for seed in range(3)]
        >>> for config in configs:
        ...     config.train.steps = 5
        >>> jobs = [Job(number, asked(config)) for number, config in enumerate(configs)]
        >>> [group] = planned([job.asked for job in jobs], [(0, 1, 2)])
        >>> run_side_by_side(group, jobs, Request(1 << 30, (), None, False, lambda line: None, []))
        1
        >>> [job.status for job in jobs]
        ['finished', 'finished', 'finished']
    """
    each = arguments_of(group, [job.asked for job in jobs])
    waiting = [_Run(job, arguments) for job, arguments in zip(jobs, each, strict=True)]
    lanes, programs, compiles = group.lanes, None, 0
    while waiting and not request.signals:
        now = waiting[:lanes]
        if programs is None:
            programs, compiles = _compiled(now, lanes, request), compiles + 1
            # The constant part of a program's memory is small beside that of its lanes.
            split = max(1, len(request.devices))
            most = max(1, lanes // split * request.memory // max(programs.memory, 1))
            if most < lanes // split:
                request.say(f"{lanes} lanes do not fit in memory: compiling for {most * split}")
                lanes, programs = fitting(len(waiting), most, split), None
                continue
        waiting = waiting[lanes:]
        compiles += _run_chunk(now, programs, request)
    return compiles


class _Run:
    """A job, its arguments of ``fit``, and while it is under way its lane."""

    def __init__(self, job: Job, arguments: Arguments):
        self.job, self.arguments, self.data = job, arguments, arguments["data"]
        self.folder: RunFolder | None = None
        self.lane: Lane = None  # type: ignore[assignment]

    def begin(self, request: Request, stack: ExitStack, environment: dict[str, Any]) -> None:
        """Open the folder and the record."""
        job, arguments = self.job, self.arguments
        best, steps = arguments["best"], arguments["steps"]
        if job.folder:
            mark(job.folder, {"identity": job.identity})
            self.folder = RunFolder(job.folder, resume=True, keep=arguments["keep"])
            stack.callback(self.folder.close)
            self.folder.begin(arguments["config"], environment, self.data.vocabulary)
        names = ("steps", "eval_every", "checkpoint_every", "log_every", "best", "hooks")
        plan = plan_of(
            self.data,
            **{name: arguments[name] for name in names},
            stop=request.stop(arguments["stop"], job),
        )
        console = report.RunConsole(self.data.name, steps, quiet=True)
        first = self.folder.first if self.folder else 0
        record = stack.enter_context(Record(self.folder, console, best, plan.log_every, first))
        self._plan, self._record, self._request = plan, record, request

    def restored(self, like: Any, state: train.TrainState) -> train.TrainState:
        """The state to go on from: that of the newest checkpoint, or the first one."""
        options, record = self.arguments["options"], self._record
        if record.first:
            state = record.restore(like, lambda state: train.evaluation_params(state, options))
        self.lane = Lane(self._plan, record, self._request.signals)
        return state


def _compiled(runs: Sequence[_Run], count: int, request: Request) -> LanePrograms:
    values, _ = _arguments(runs, count)
    rows = rows_of([run.data.train for run in runs], count)
    return compile_lanes(runs[0].arguments, rows, runs[0].data, values, devices=request.devices)


def _arguments(runs: Sequence[_Run], count: int) -> tuple[Any, Any]:
    """Hyperparameters and keys of the lanes; dead lanes have those of the first."""
    values = [
        train.as_hparams(run.arguments["hparams"], run.arguments["options"].policy.params)
        for run in runs
    ]
    keys = [jax.random.key(run.arguments["seed"]) for run in runs]
    missing = count - len(runs)
    return stacked(values + values[:1] * missing), jnp.stack(keys + keys[:1] * missing)


def _run_chunk(runs: Sequence[_Run], programs: LanePrograms, request: Request) -> int:
    """Bring some jobs to their ends; how often another program was compiled for fewer of them."""
    compiles, looks = 0, runs[0].arguments["nonfinite"] != "off"
    with ExitStack() as stack:
        # It asks git, among others: once is enough.
        environment = report.environment() if any(run.job.folder for run in runs) else {}
        for run in runs:
            run.begin(request, stack, environment)
        values, keys = map(programs.placed, _arguments(runs, programs.count))
        states = programs.placed(programs.init(values, keys))
        like = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), states)
        each = [run.restored(like, taken(states, lane)) for lane, run in enumerate(runs)]
        while True:
            if any(run.lane.step for run in runs):
                states = _filled(each, programs)
            chunk = Chunk(
                [run.lane for run in runs],
                programs.on(rows_of([run.data.train for run in runs], programs.count)),
                values,
                states,
                runs[0].data,
                signals=request.signals,
                tell=_teller(runs, request),
                is_sound=lambda state: not looks or bool(train.is_sound(state)),
            )
            half = programs.count // 2 if request.compact else 0
            chunk.run(lambda alive, half=half: 0 < alive <= half)
            on = [lane for lane, run in enumerate(runs) if not (run.lane.status or request.signals)]
            _conclude(chunk, runs, set(range(len(runs))) - set(on), request)
            if not on:
                return compiles
            runs, each = [runs[lane] for lane in on], [chunk.state(lane) for lane in on]
            count = fitting(len(runs), len(runs), max(1, len(request.devices)))
            programs, compiles = _compiled(runs, count, request), compiles + 1
            values, _ = map(programs.placed, _arguments(runs, count))


def _filled(each: Sequence[Any], programs: LanePrograms) -> Any:
    return programs.placed(stacked([*each, *[each[0]] * (programs.count - len(each))]))


def _teller(runs: Sequence[_Run], request: Request) -> Any:
    def tell(lane: int, rows: list[Any]) -> None:
        if request.halving:
            request.halving.tell(runs[lane].job.number, rows)

    return tell


def _conclude(chunk: Chunk, runs: Sequence[_Run], ended: set[int], request: Request) -> None:
    """Write what those lanes have come to that have ended."""
    whole = [lane for lane in ended if runs[lane].lane.status not in (None, "diverged")]
    tests = chunk.test() if whole and not request.signals else [{} for _ in runs]
    programs = chunk.programs.to_dict()
    for lane in sorted(ended):
        run = runs[lane]
        job, record = run.job, run.lane.record
        if failure := chunk.failures.get(lane):
            record.close()
            describe_failure(failure, "", record)
            job.summary, job.status = record.summary("diverged", failure.step - 1, {}), "diverged"
            continue
        state, (params, model_state) = chunk.state(lane), chunk.best(lane)
        facts = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "form": chunk.programs.stepper.form.name,
        }
        job.result = conclude(run.lane, state, params, model_state, tests[lane], programs, facts)
        job.summary = job.result.summary
        job.status = job.summary["status"]
    # Pages last: they take longer than all the rest, and no part of any run's time.
    for lane in sorted(ended):
        run = runs[lane]
        if run.folder and run.job.result:
            run.lane.record.close()
            page = run.arguments.get("page")
            write(run.folder, run.job.result, run.data.class_names, page)
        request.ended(run.job)
