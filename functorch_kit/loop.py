"""``fit``: next batches, step, log, evaluate, save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import program, report, train
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.record import Record, Row
from functorch_kit.run import Interrupted, RunFolder, interruptible
from functorch_kit.types import ModelState, Params


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
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 10,
    form: str = "auto",
    best: tuple[str, str] = ("loss", "min"),
    stop: Callable[[Sequence[Row]], bool] | None = None,
    quiet: bool = False,
    config: Mapping[str, Any] | None = None,
    page: Callable[[FitResult], Mapping[str, Any]] | None = None,
) -> FitResult:
    """Train a model, keeping the best parameters by validation.

    Everything is compiled before the first batch is made. Where evaluations, checkpoints and
    dispatches fall does not change a bit of the result and compiles nothing again.

    Args:
        model: a Model, or a function of the hyperparameters that returns one.
        objective: such as ``train.classification(model)``, or a function of the hyperparameters.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters.
        data: training stream, validation and test parts; see ``functorch_kit.data``.
        steps: the step at which the run ends.
        hparams: hyperparameters by name; new values do not compile again.
        seed: of parameters and randomness (the order of the data has its own).
        run_dir: where to write records, checkpoints and the report; nothing is written if None.
        resume: go on from the newest checkpoint in ``run_dir``.
        overwrite: replace a run in ``run_dir``.
        eval_every: steps between evaluations; an epoch if None. The last step is evaluated too.
        checkpoint_every: steps between checkpoints; as ``eval_every`` if None. The best and the
            last step are always saved.
        log_every: steps between logged training rows.
        form: ``"auto"``, ``"chunk"`` or ``"single"``; see ``train.choose_form``.
        best: metric of the validation rows and ``"min"`` or ``"max"``.
        stop: a function of the validation rows so far that says when to stop early.
        quiet: print nothing.
        config: plain settings to keep beside the results.
        page: a function of the result that returns further material for ``report.write_page``.

    Returns:
        A FitResult.

    Raises:
        UserError: settings or folders that cannot be used.
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
    epoch: int = data.train.steps_per_epoch
    eval_every = epoch if eval_every is None else eval_every
    checkpoint_every = eval_every if checkpoint_every is None else checkpoint_every
    counts = {"steps": steps, "eval_every": eval_every, "checkpoint_every": checkpoint_every}
    _check({**counts, "log_every": log_every}, best)
    if resume and run_dir is None:
        raise UserError("resume needs a run_dir: there is no folder to go on from")
    run = RunFolder(run_dir, resume=resume, overwrite=overwrite) if run_dir else None
    latest = run.first if run else 0
    program.use_cache()

    with ExitStack() as stack:
        console = stack.enter_context(report.RunConsole(data.name, steps, quiet, first_step=latest))
        values, key = train.as_hparams(hparams), jax.random.key(seed)
        init = train.make_init(model, optimizer, data.train.spec["x"])
        # Jitted and inlined, the step is traced once, for the choice of the form and the program.
        step_function = jax.jit(train.make_train_step(objective, optimizer), inline=True)
        with program.tracing("init", ("hparams", "key"), (values, key)):
            like = jax.eval_shape(init, values, key)
        with console.compiling("train_step"):
            chosen = train.choose_form(step_function, values, like, data.train.spec, form)
            stepper = train.Stepper(step_function, data.train, values, like, chosen)
        console.program(stepper.program.report)
        evaluate = None
        if held_out := data.validation or data.test:
            variables = (like.params, like.model_state)
            with console.compiling("eval_step"):
                evaluate = train.Evaluator(objective, held_out, values, *variables)
            console.program(evaluate.program.report)
            if data.validation and best[0] not in evaluate.scalars:
                names = " or ".join(evaluate.scalars)
                raise UserError(f"best is {best}: validation measures no {best[0]!r}: give {names}")

        if run:
            run.begin(config)
        record = Record(run, console, best, log_every, latest)
        stack.callback(record.close)
        requests = stack.enter_context(interruptible())
        if latest:
            state = record.restore(like)
        else:
            with console.compiling("init"):
                first = train.compiled_init(init, values, key)
            state = first(values, key)
        step, status, pauses = latest, "finished", (eval_every, checkpoint_every)
        if stop and record.validations and stop(record.validations):
            status, steps = "stopped early", latest
        if latest >= steps:
            console.line(f"the run is finished at step {latest}: nothing is left to train")

        for step, state in train.advance(  # noqa: B020 (where the last step leaves them)
            stepper, values, state, latest, steps, every=pauses, log=record.train, requests=requests
        ):
            improved = stopped = False
            if evaluate and data.validation and (step == steps or step % eval_every == 0):
                metrics = evaluate(data.validation, values, state.params, state.model_state)
                improved = record.validation(step, metrics, state)
                stopped = stop is not None and stop(record.validations)
            if improved or stopped or requests or step == steps or step % checkpoint_every == 0:
                record.save(step, state, best=improved)
            if stopped:
                status = "stopped early"
            if stopped or requests:
                break
        # Asked here and not in the loop, which a request before the first step never enters.
        if requests and status == "finished":
            status = "interrupted"

        params, model_state = record.best_of(state)
        test = {}
        if evaluate and data.test and status != "interrupted":
            test = evaluate(data.test, values, params, model_state)
        sizes = [leaf.size for leaf in jax.tree.leaves(like.params)]
        summary = {
            **record.summary(status, step, test),
            "parameters": sum(sizes),
            "form": chosen.name,
        }
        programs = _programs(stepper, evaluate)
        path = run.path if run else None
        result = FitResult(state, params, model_state, record.rows, summary, test, programs, path)
        if run:
            _write(run, record, result, data.class_names, page)
        if requests:  # also one that came while the last files were written: the caller must hear
            raise Interrupted(requests[0], step)
        return result


def _check(counts: Mapping[str, int], best: tuple[str, str]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} is {count}: give a whole number from 1 up")
    if best[1] not in ("min", "max"):
        raise UserError(f"best is {best}: its second part must be 'min' or 'max'")


def _programs(stepper: train.Stepper, evaluate: train.Evaluator | None) -> dict[str, Any]:
    programs = [stepper.program] + ([evaluate.program] if evaluate else [])
    return {
        "form": stepper.form.name,
        "form_reason": stepper.form.reason,
        "steps_per_dispatch": stepper.most_steps,
        "input_wait_seconds": stepper.input_wait_seconds,
        "compute_seconds": stepper.compute_seconds,
        "programs": {each.name: each.report.to_dict() for each in programs},
    }


def _write(run: RunFolder, record: Record, result: FitResult, class_names, page) -> None:
    record.close()
    run.write("summary", result.summary)
    run.write("program", result.programs)
    material: dict[str, Any] = {"class_names": class_names}
    if np.ndim(result.test.get("confusion", 0)) == 2:
        material["confusion"] = result.test["confusion"]
    if page and result.test:
        material |= page(result)
    report.write_page(run.path, **material)
