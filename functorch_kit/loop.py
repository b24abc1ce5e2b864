"""``fit``: next batches, step, log, evaluate, save."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import checkpoint, distributed, program, report, train
from functorch_kit.compiled import Programs, check_kinds, compile_programs
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.lane import Hook, Lane, Plan, Stop, plan_of
from functorch_kit.record import Record, Row
from functorch_kit.run import Interrupted, RunFolder, interruptible
from functorch_kit.types import HParams, Key, ModelState, Params


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What ``fit`` returns.

    Attributes:
        state: the TrainState after the last step.
        params: of the best step by validation; of the last step where there is no validation.
        model_state: likewise.
        history: the logged rows, each with ``step``, ``split``, ``loss`` and other metrics.
        summary: what stands in ``summary.json``.
        test: metrics of the best step on the test part, arrays such as ``confusion`` among them.
        programs: what was compiled and how it ran, as in ``program.json``.
        run_dir: the run's folder, if it has one.
    """

    state: train.TrainState
    params: Params
    model_state: ModelState
    history: list[Row]
    summary: dict[str, Any]
    test: dict[str, Any]
    programs: dict[str, Any]
    run_dir: Path | None


def fit(
    model: Any,
    objective: Any,
    *,
    optimizer: Any,
    data: Data,
    steps: int,
    hparams: Mapping[str, float] | None = None,
    seed: int = 0,
    options: train.Options | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 1,
    keep: checkpoint.Keep | None = None,
    form: str = "auto",
    best: tuple[str, str] = ("loss", "min"),
    stop: Stop | None = None,
    hooks: Sequence[Hook] = (),
    max_seconds: float | None = None,
    nonfinite: str = "off",
    max_rollbacks: int = 3,
    quiet: bool = False,
    config: Mapping[str, Any] | None = None,
    page: Callable[[FitResult], Mapping[str, Any]] | None = None,
    programs: Programs | None = None,
    mesh: jax.sharding.Mesh | None = None,
    rules: Any = None,
) -> FitResult:
    """Train a model, evaluate it on the way, keep the best parameters, leave a report.

    The same configuration gives the same bits wherever the run pauses, evaluates, saves, is stopped
    or goes on, because data and randomness are functions of the step.

    Args:
        model: a Model, or a function of the hyperparameters that returns one.
        objective: see ``train.classification``; or a function of the hyperparameters.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters.
        data: training, validation and test parts; see ``functorch_kit.data``.
        steps: number of steps in all, resumed ones included.
        hparams: name -> number; arguments of the compiled program, so that a new value needs no
            compilation.
        seed: of parameters and of randomness in training (the data's order has its own).
        options: accumulation, precision, average …; see ``train.Options``.
        run_dir: where to write records, checkpoints and the report; nothing is written if None.
        resume: go on from the newest checkpoint in ``run_dir``.
        overwrite: replace a run in ``run_dir``.
        eval_every: steps between evaluations; an epoch if None. The last step is evaluated too.
        checkpoint_every: steps between checkpoints; as ``eval_every`` if None. The best and the
            last step are always saved.
        log_every: steps between logged training rows.
        keep: which checkpoints stay; see ``checkpoint.Keep``.
        form: ``"auto"``, ``"chunk"`` or ``"single"``; see ``train.choose_form``.
        best: metric of the validation rows and ``"min"`` or ``"max"``.
        stop: a function of the validation rows so far that says when to stop early: True, or in a
            word of its own how the run has ended, which ``summary.json`` then says.
        hooks: functions of a ``Progress``, called after each evaluation and checkpoint.
        max_seconds: wall-clock time after which the run saves and ends, resumed parts included.
        nonfinite: what happens to a step whose loss is not finite, or that leaves a state behind
            which is not: see ``train.Guard``. ``off``: a loss that is not finite ends the run, and
            nothing else is looked at. ``skip``: the step moves nothing, and is counted. ``raise``:
            the run ends before it, and says which step and leaf. ``rollback``: the run goes back to
            its newest checkpoint, and on with the data that follow the bad batch.
        max_rollbacks: how often ``rollback`` may go back.
        quiet: print nothing.
        config: plain settings to keep beside the results.
        page: a function of the result that returns further material for ``report.write_page``.
        programs: compiled before, for this data and for hyperparameters of these names; see
            ``compile_programs`` and ``Programs.on``. Compiled now if None.
        mesh: devices to share the work out to, see ``distributed.make_mesh``; one if None.
        rules: which parameters are split over its axes, see ``distributed.Rules``. Without any,
            batches are, and over an axis ``fsdp`` all that is large.

    Returns:
        A FitResult.

    Raises:
        UserError: settings or folders that cannot be used.
        NonFinite: a step gave a NaN or an infinity, and ``nonfinite`` does not go on from there.
            The newest checkpoint is older than that step; ``failure.json`` says which step it was.
        Interrupted: SIGINT or SIGTERM came, and what was under way is written; the step reached,
            if there is one, was saved.

    Example:
        >>> import numpy as np, optax, functorch_kit as fk
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        >>> data = fk.data.arrays(x, (x[:, 0] > 0).astype(np.int32), batch_size=20)
        >>> model = fk.nn.dense(2)
        >>> result = fk.fit(model, fk.train.classification(model), optimizer=optax.adam(0.1),
        ...                 data=data, steps=60, quiet=True)
        >>> result.summary["test_accuracy"] > 0.9
        True
    """
    check_kinds(model, objective, optimizer, data)
    options = options or train.Options()
    if nonfinite not in train.NONFINITE:
        known = ", ".join(train.NONFINITE)
        raise UserError(f"nonfinite {nonfinite!r} is not one of {known}")
    plan = plan_of(
        data,
        steps=steps,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        best=best,
        stop=stop,
        hooks=tuple(hooks),
        max_seconds=max_seconds,
    )
    for needed, wanted in {"resume": resume, "rollback": nonfinite == "rollback"}.items():
        if wanted and run_dir is None:
            raise UserError(f"{needed} needs a run_dir: there is no folder to go on from")
    layout = None if mesh is None else distributed.Layout(mesh, rules)
    team = distributed.Team()
    if layout is not None and layout.spans_processes:
        team = distributed.Team.of_all()
    quiet = quiet or not team.is_main
    run = None
    if run_dir is not None:
        run = RunFolder(run_dir, resume=resume, overwrite=overwrite, keep=keep, team=team)
    first = run.first if run else 0
    program.use_cache()

    with ExitStack() as stack:
        console = stack.enter_context(report.RunConsole(data.name, steps, quiet, first_step=first))
        values, key = train.as_hparams(hparams, options.policy.params), jax.random.key(seed)
        settings: dict[str, Any] = {"options": options, "form": form, "best": best[0]}
        settings["nonfinite"] = nonfinite
        settings["layout"] = layout
        if team.count > 1 and layout is not None:
            values, key = layout.put(values), layout.put_key(key)
        if programs is None:
            programs = compile_programs(
                model, objective, optimizer, data, values, key, console=console, **settings
            )
        # First, to be left last: a signal does not end the process while the run is being closed.
        signals = stack.enter_context(interruptible())
        if run:
            stack.callback(run.close)
            run.begin(config, vocabulary=data.vocabulary)
        rollbacks, seconds = 0, 0.0
        while True:
            record = stack.enter_context(Record(run, console, best, log_every, first, seconds))
            try:
                told = nonfinite, signals, team
                lane, state = _train(plan, programs, record, data, values, key, *told)
                break
            except train.NonFinite as failure:
                record.close()
                if nonfinite != "rollback" or rollbacks >= max_rollbacks:
                    raise _failed(failure, record, programs, data, values) from None
                assert run is not None
                first = team.said(run.store.newest() or 0)
                # Row first + offset is the next to be read: that after the batch that failed.
                programs.stepper.offset += failure.step - first
                rollbacks, seconds = rollbacks + 1, record.seconds
                console.line(f"{failure}: back to step {first}, without the data up to there")

        if (found := programs.stepper.input()).is_input_bound:
            console.line(str(found))
        params, model_state = record.best_of(programs.evaluation_params(state), state.model_state)
        test = {}
        if programs.evaluator and data.test and lane.status != "interrupted":
            test = programs.evaluator(data.test, values, params, model_state)
        facts: dict[str, Any] = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params))
        }
        facts["form"] = programs.stepper.form.name
        if nonfinite == "rollback":
            facts["rollbacks"] = rollbacks
        result = conclude(lane, state, params, model_state, test, programs.to_dict(), facts)
        if run:
            record.close()
            write(run, result, data.class_names, page if team.count == 1 else None)
            team.said(None)  # nobody leaves before the report is written
        # Also one that came while the last files were written: the caller must hear of it.
        if signals:
            raise Interrupted(signals[0], lane.step)
        return result


def _train(
    plan: Plan,
    programs: Programs,
    record: Record,
    data: Data,
    values: HParams,
    key: Key,
    nonfinite: str,
    signals: list[Any],
    team: distributed.Team,
) -> tuple[Lane, train.TrainState]:
    """Steps, pauses and what is done in them; the run at its end, and its state."""
    stepper, evaluate = programs.stepper, programs.evaluator
    if record.first:
        state = record.restore(programs.like, programs.evaluation_params)
        # The larger one: rows are only ever skipped, by this process or by one before it.
        stepper.offset = max(stepper.offset, record.data_offset)
    else:
        state = programs.first_state(values, key)
    record.data_offset = stepper.offset
    lane = Lane(plan, record, signals, team)
    if lane.status:
        return lane, state
    every, guard = (plan.eval_every, plan.checkpoint_every), None
    if nonfinite != "off":
        clock = lambda: team.said(time.perf_counter())  # noqa: E731
        guard = train.Guard(stepper, skips=nonfinite == "skip", clock=clock)
    for step, state in train.advance(  # noqa: B020 (where the last step leaves them)
        stepper,
        values,
        state,
        lane.step,
        plan.steps,
        every=every,
        log=lane.log,
        asked=lambda: lane.is_asked,
        guard=guard,
        agreed=team.said,
    ):
        metrics, params = None, ()
        if evaluate and data.validation and plan.evaluates_at(step) and not lane.has_failed:
            params = programs.evaluation_params(state)
            metrics = evaluate(data.validation, values, params, state.model_state)
        lane.pause(step, state, metrics, params)
        if lane.status:
            break
    else:
        lane.status = "interrupted"  # before the first step: there was no pause
    return lane, state


def conclude(
    lane: Lane,
    state: train.TrainState,
    params: Params,
    model_state: ModelState,
    test: dict[str, Any],
    programs: dict[str, Any],
    facts: Mapping[str, Any],
) -> FitResult:
    """What a run has come to, as ``fit`` returns it and its folder keeps it.

    Args:
        lane: the run, ended.
        state: its last state.
        params: those of its best step.
        model_state: likewise.
        test: their metrics on the test part.
        programs: what was compiled and how it ran.
        facts: what else ``summary.json`` is to say.

    Example:
        >>> plan = Plan(steps=1, eval_every=1, checkpoint_every=1)
        >>> console = report.RunConsole("example", 1, quiet=True)
        >>> lane = Lane(plan, Record(None, console, plan.best, 1, first=1))
        >>> state = train.TrainState(1, {}, (), (), None)
        >>> conclude(lane, state, {}, (), {"loss": 0.5}, {}, {}).summary["test_loss"]
        0.5
    """
    record = lane.record
    summary = record.summary(lane.status or "interrupted", lane.step, test) | dict(facts)
    return FitResult(state, params, model_state, record.rows, summary, test, programs, record.path)


def write(
    run: RunFolder,
    result: FitResult,
    class_names: Sequence[str],
    page: Callable[[FitResult], Mapping[str, Any]] | None,
) -> None:
    """Write what a run has come to into its folder: the summary, the programs and the report.

    Example:
        >>> import tempfile
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> state = train.TrainState(1, {}, (), (), None)
        >>> write(run, FitResult(state, {}, (), [], {"steps": 1}, {}, {}, run.path), (), None)
        >>> sorted(path.name for path in run.path.iterdir())
        ['program.json', 'report.html', 'summary.json']
    """
    run.write("summary", result.summary)
    run.passed(result.summary["steps"])
    run.write("program", result.programs)
    material: dict[str, Any] = {"class_names": class_names}
    if np.ndim(result.test.get("confusion", 0)) == 2:
        material["confusion"] = result.test["confusion"]
    if page and result.test:
        material |= page(result)
    if run.team.is_main:
        report.write_page(run.path, **material)


def _failed(
    failure: train.NonFinite,
    record: Record,
    programs: Programs,
    data: Data,
    values: HParams,
) -> train.NonFinite:
    """The failure, with what is known of it in the message and in the run's folder."""
    step, offset, where = failure.step, programs.stepper.offset, ""
    alone = programs.layout is None or not programs.layout.spans_processes
    if alone and failure.state is not None and int(failure.state.step) == step - 1:
        # The state is still the one before that step, which can be looked into at once.
        batch = data.train(step - 1 + offset)
        found = program.first_nonfinite(
            programs.train_step, values, failure.state, batch, tested=True
        )
        where = f", from {str(found).splitlines()[0]}" if found else ""
    told = describe_failure(failure, where, record, offset)
    told.state = failure.state
    return told


def describe_failure(
    failure: train.NonFinite, where: str, record: Record, offset: int = 0
) -> train.NonFinite:
    """A failure with its remedy, written into the run's folder if there is one.

    Args:
        failure: of the step that ended the run.
        where: what is known of its place.
        record: of the run.
        offset: how many rows of data the run had skipped.

    Example:
        >>> record = Record(None, report.RunConsole("example", 9, quiet=True), ("loss", "min"), 1)
        >>> print(describe_failure(train.NonFinite(7, "step 7: the loss is nan"), "", record))
        step 7: the loss is nan: nonfinite='skip' and 'rollback' go on without such a step
    """
    step, run = failure.step, record.run
    remedy = "nonfinite='skip' and 'rollback' go on without such a step"
    if run:
        remedy = f"replay {str(run.path)!r} to see where; {remedy}"
    told = train.NonFinite(step, f"{failure}{where}: {remedy}")
    if run:
        newest, error = run.store.newest(), str(told)
        facts = {"step": step, "checkpoint": newest, "data_offset": offset, "error": error}
        run.write("failure", facts)
        run.write("summary", record.summary("diverged", step - 1, {}))
    return told
