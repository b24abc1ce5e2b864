"""Everything that a run executes, compiled from shapes before there is data or a folder."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from functorch_kit import program, report, train
from functorch_kit.data import Data
from functorch_kit.distributed import Layout, collective_facts, layout_facts
from functorch_kit.errors import UserError
from functorch_kit.types import HParams, Key, Model, Params, Spec


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run.

    Attributes:
        train_step: the pure step that the stepper was compiled from, as one device takes it.
        stepper: takes steps.
        evaluator: evaluates; None where nothing is held out.
        like: shapes and dtypes of the TrainState, on several devices with shardings.
        layout: on several devices, where everything lies; None on one.

    Example:
        >>> [field.name for field in dataclasses.fields(Programs)][:2]
        ['train_step', 'stepper']
    """

    train_step: train.TrainStep
    stepper: train.Stepper
    evaluator: train.Evaluator | None
    like: Spec
    _init: Callable[[HParams, Key], train.TrainState]
    _evaluation_params: program.Program | None
    layout: Layout | None = None

    def on(self, data: Data) -> Programs:
        """The same programs for data of the same shapes: another order, say, or other records."""
        return dataclasses.replace(self, stepper=self.stepper.on(data.train))

    def first_state(self, hparams: HParams, key: Key) -> train.TrainState:
        """The state before the first step; what makes it is compiled at the first call."""
        return self._init(hparams, key)

    def evaluation_params(self, state: train.TrainState) -> Params:
        """The parameters that are evaluated: those of the state, or an average of them."""
        return self._evaluation_params(state) if self._evaluation_params else state.params

    def to_dict(self) -> dict[str, Any]:
        """What was compiled and how it ran, as in ``program.json``."""
        facts = as_facts(self.stepper, self.evaluator)
        if self.layout is None:
            return facts
        compiled = {each.name: each for each in _compiled_of(self.stepper, self.evaluator)}
        facts["layout"] = layout_facts(self.layout, self.like)
        return facts | {"collectives": collective_facts(compiled)}


def as_facts(
    stepper: train.Stepper, evaluator: train.Evaluator | train.LaneEvaluator | None
) -> dict[str, Any]:
    """What was compiled and how it ran, as in ``program.json``.

    Args:
        stepper: of one run, or of the lanes of many.
        evaluator: likewise; None where nothing is held out.

    Example:
        >>> import numpy as np, optax
        >>> from functorch_kit import data, nn
        >>> model, sgd = nn.dense(2), optax.sgd(0.1)
        >>> parts = data.arrays(np.eye(20), np.arange(20) % 2, batch_size=4)
        >>> state = train.init_state(model, sgd, parts.train.spec["x"])
        >>> step = train.make_train_step(train.classification(model), sgd)
        >>> stepper = train.Stepper(step, parts.train, {}, state, train.Form("chunk", "example"))
        >>> list(as_facts(stepper, None)["programs"])
        ['train_step']
    """
    compiled = _compiled_of(stepper, evaluator)
    return {
        "form": stepper.form.name,
        "form_reason": stepper.form.reason,
        "steps_per_dispatch": stepper.most_steps,
        "input_wait_seconds": stepper.input_wait_seconds,
        "compute_seconds": stepper.compute_seconds,
        "input": stepper.input().to_dict(),
        "programs": {each.name: each.report.to_dict() for each in compiled},
    }


def _compiled_of(
    stepper: train.Stepper, evaluator: train.Evaluator | train.LaneEvaluator | None
) -> list[program.Program]:
    return [stepper.program] + ([evaluator.program] if evaluator else [])


def compile_programs(
    model: Any,
    objective: Any,
    optimizer: Any,
    data: Data,
    hparams: HParams,
    key: Key,
    *,
    options: train.Options,
    form: str,
    best: str,
    console: report.RunConsole,
    nonfinite: str = "off",
    layout: Layout | None = None,
) -> Programs:
    """Compile a run's programs, one line of progress for each.

    Args:
        model: see ``fit``, as for the next three.
        objective: its objective.
        optimizer: its optimizer.
        data: its data; only shapes are read.
        hparams: the hyperparameters as arrays.
        key: the run's key.
        options: of the train step.
        form: ``"auto"``, ``"chunk"`` or ``"single"``.
        best: the metric that validation has to measure.
        console: told what is compiled.
        nonfinite: see ``fit``; if not ``off``, steps are compiled with a check of what they leave.
        layout: where everything lies, on several devices.

    Raises:
        UserError: functions that cannot be compiled, or a metric that is not measured.

    Example:
        >>> import jax, numpy as np, optax
        >>> from functorch_kit import data, nn, report, train
        >>> parts = data.arrays(np.eye(20), np.arange(20) % 2, batch_size=4)
        >>> console = report.RunConsole("example", 5, quiet=True)
        >>> programs = compile_programs(
        ...     nn.dense(2), train.classification(nn.dense(2)), optax.sgd(0.1), parts, {},
        ...     key := jax.random.key(0), options=train.Options(), form="auto", best="loss",
        ...     console=console)
        >>> programs.stepper.form.name, int(programs.first_state({}, key).step)
        ('chunk', 0)
    """
    layout = None if layout is None or layout.is_plain else layout
    init = train.make_init(model, optimizer, data.train.spec["x"], options)
    train_step = plain_step = train.make_train_step(objective, optimizer, options)
    if layout is not None:
        layout.check_batch(data.train, options.accumulate)
        # What it computes is pinned to the mesh, wherever it is called from: micro-batches, too.
        given = objective
        objective = lambda hparams: layout.objective(train.resolve(given, hparams))  # noqa: E731
        train_step = train.make_train_step(objective, optimizer, options)
    # Jitted and inlined, the step is traced once, for the choice of the form and the program.
    traced_once, lies = jax.jit(train_step, inline=True), None
    with program.tracing("init", ("hparams", "key"), (hparams, key)):
        like = jax.eval_shape(init, hparams, key)
    if layout is not None:
        like = layout.on_mesh(like)
        lies = jax.tree.map(lambda leaf: leaf.sharding, like)
        traced_once = jax.jit(layout.step(train_step, lies), inline=True)
    with console.compiling("train_step"):
        chosen = train.choose_form(traced_once, hparams, like, data.train.spec, form)
        checked = nonfinite != "off"
        stepper = train.Stepper(
            traced_once, data.train, hparams, like, chosen, is_checked=checked, layout=layout
        )
    console.program(stepper.program.report)

    averaged = None
    if options.evaluate != "params":
        with console.compiling("evaluation_params"):
            averaged = program.compile(
                lambda state: train.evaluation_params(state, options),
                like,
                name="evaluation_params",
                out_shardings=None if lies is None else lies.params,
            )
    evaluator = None
    if held_out := data.validation or data.test:
        with console.compiling("eval_step"):
            evaluator = train.Evaluator(
                objective, held_out, hparams, like.params, like.model_state, options, layout
            )
        console.program(evaluator.program.report)
        if data.validation and best not in evaluator.scalars:
            names = " or ".join(evaluator.scalars)
            raise UserError(f"best: validation measures no {best!r}: give {names}")

    compiled_init: list[program.Program] = []

    def first_state(hparams: HParams, key: Key) -> train.TrainState:
        if not compiled_init:
            with console.compiling("init"):
                compiled_init.append(train.compiled_init(init, hparams, key, lies))
        return compiled_init[0](hparams, key)

    return Programs(plain_step, stepper, evaluator, like, first_state, averaged, layout)


def check_kinds(model: Any, objective: Any, optimizer: Any, data: Any) -> None:
    """Refuse arguments that would fail deep inside, in words that nobody could trace back.

    Args:
        model: see ``fit``, as for the others.
        objective: of these.
        optimizer: of these.
        data: of these.

    Raises:
        UserError: naming the argument.

    Example:
        >>> from functorch_kit import nn
        >>> check_kinds(nn.dense(2), train.classification, optax.adam, None)
        Traceback (most recent call last):
        functorch_kit...UserError: data is a NoneType: give fk.data.arrays(x, y, batch_size=…) or
        the like
    """
    if getattr(jax.config, "jax_disable_jit", False):
        raise UserError("fit runs compiled programs: call it outside jax.disable_jit()")
    if not isinstance(data, Data):
        kind = type(data).__name__
        raise UserError(f"data is a {kind}: give fk.data.arrays(x, y, batch_size=…) or the like")
    for name, value in {"model": model, "objective": objective, "optimizer": optimizer}.items():
        if not callable(value) and not isinstance(
            value, Model | optax.GradientTransformation | optax.GradientTransformationExtraArgs
        ):
            kind = type(value).__name__
            raise UserError(f"{name} is a {kind}: give one, or a function of the hyperparameters")
    if inspect.isfunction(optimizer) and optimizer.__module__.startswith("optax"):
        name = optimizer.__name__
        raise UserError(f"optimizer is the function optax.{name}: give optax.{name}(1e-3), say")
