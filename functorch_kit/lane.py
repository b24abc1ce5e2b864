"""One run between its dispatches: what it logs, when it is judged and saved, how it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit import distributed, train
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.record import Record, Row
from functorch_kit.types import Params

Hook = Callable[["Progress"], None]
Stop = Callable[[list[Row]], bool | str]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands when its hooks are called: after an evaluation or a checkpoint.

    Attributes:
        step: steps taken.
        state: the TrainState; its buffers are gone after the next step, so copy what you keep.
        history: the rows so far.
        run_dir: the run's folder, if it has one.
    """

    step: int
    state: train.TrainState
    history: Sequence[Row]
    run_dir: Path | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How far a run goes, and where it pauses: what ``fit`` is asked besides what it computes.

    Attributes:
        steps: number of steps in all.
        eval_every: steps between evaluations.
        checkpoint_every: steps between checkpoints.
        log_every: steps between logged training rows.
        best: metric of the validation rows and ``"min"`` or ``"max"``.
        stop: a function of the validation rows so far that says when to stop early: True, or in a
            word of its own how the run has ended.
        hooks: called after each evaluation and checkpoint.
        max_seconds: wall-clock time after which the run ends.

    Raises:
        UserError: numbers that cannot be used.

    Example:
        >>> plan = Plan(steps=250, eval_every=100, checkpoint_every=50)
        >>> [step for step in range(1, 251) if plan.evaluates_at(step)]
        [100, 200, 250]
    """

    steps: int
    eval_every: int
    checkpoint_every: int
    log_every: int = 1
    best: tuple[str, str] = ("loss", "min")
    stop: Stop | None = None
    hooks: tuple[Hook, ...] = ()
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "eval_every", "checkpoint_every", "log_every"):
            count = getattr(self, name)
            if not isinstance(count, int | np.integer) or count < 1:
                raise UserError(f"{name} is {count}: give a whole number from 1 up")
        if self.best[1] not in ("min", "max"):
            raise UserError(f"best is {self.best}: its second part must be 'min' or 'max'")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise UserError(f"max_seconds is {self.max_seconds}: give a number above 0")

    def evaluates_at(self, step: int) -> bool:
        """Whether a run is evaluated after a step."""
        return step == self.steps or step % self.eval_every == 0


def plan_of(
    data: Data, *, steps: int, eval_every: int | None, checkpoint_every: int | None, **others: Any
) -> Plan:
    """The plan for some data: evaluated each epoch, and saved whenever it is evaluated, if unsaid.

    Args:
        data: the run's.
        steps: see ``Plan``, as for the others.
        eval_every: an epoch if None.
        checkpoint_every: as ``eval_every`` if None.
        **others: of ``Plan``.

    Example:
        >>> from functorch_kit import data
        >>> digits = data.digits(batch_size=64)
        >>> plan_of(digits, steps=100, eval_every=None, checkpoint_every=None).checkpoint_every
        20
    """
    evals: int = data.train.steps_per_epoch if eval_every is None else eval_every
    saves: int = evals if checkpoint_every is None else checkpoint_every
    return Plan(steps=steps, eval_every=evals, checkpoint_every=saves, **others)


class Lane:
    """A run as its host sees it: ``fit`` drives one, a sweep drives many side by side.

    Args:
        plan: how far it goes and where it pauses.
        record: where it writes.
        signals: filled from outside when every run is to stop; see ``interruptible``.
        team: the processes that take its steps together; None for one.

    Attributes:
        status: how it ended, as in ``summary.json``; None while it goes on.
        step: where it paused last.

    Example:
        >>> from functorch_kit import report
        >>> plan = Plan(steps=20, eval_every=10, checkpoint_every=10)
        >>> console = report.RunConsole("example", 20, quiet=True)
        >>> lane = Lane(plan, Record(None, console, plan.best, plan.log_every))
        >>> state = train.TrainState(20, {}, (), (), None)
        >>> lane.log(0, {"loss": np.ones(20)})
        >>> lane.pause(20, state, {"loss": 0.5}, {})
        >>> lane.status, lane.record.best_step
        ('finished', 20)
    """

    def __init__(
        self,
        plan: Plan,
        record: Record,
        signals: Sequence[Any] = (),
        team: distributed.Team | None = None,
    ):
        self.plan, self.record = plan, record
        self._team = team or distributed.Team()
        self.status: str | None = None
        self.step = record.first
        self._signals = signals
        self._failure: train.NonFinite | None = None
        self._is_out_of_time = False
        if self.step >= plan.steps:
            record.console.line(
                f"the run is finished at step {self.step}: nothing is left to train"
            )
            self.status = "finished"
        elif rows := record.validations:
            self.status = self._stopped(rows)

    @property
    def has_failed(self) -> bool:
        """Whether a step failed since the last pause."""
        return self._failure is not None

    @property
    def is_asked(self) -> bool:
        """Whether it is to pause at once, for the last time; the same in all processes."""
        reason = "failed" if self._failure is not None else None
        if self._signals:
            reason = self._signals[0]
        elif self._is_out_of_time:
            reason = reason or "out of time"
        if self._team.count > 1:
            reason = self._team.asked(reason)
            self._is_out_of_time |= reason == "out of time"
            if isinstance(reason, int) and isinstance(self._signals, list) and not self._signals:
                self._signals.append(reason)  # another process got it
        return reason is not None

    def log(self, start: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Log the metrics of a dispatch, each (steps,), from step ``start`` on.

        One of them may be ``failed``, see ``train.Stepper``: rows after the first step that failed
        are of no run.
        """
        if self._failure is not None:
            return  # dispatched before it was known
        rows = dict(metrics)
        failed = rows.pop("failed", np.zeros(0)) > 0
        if failed.any():
            count = int(failed.argmax()) + 1
            rows = {name: value[:count] for name, value in rows.items()}
            self._failure = _failure(start + count, rows)
        self.record.train(start, rows)
        limit = self.plan.max_seconds
        self._is_out_of_time |= limit is not None and self.record.seconds >= limit

    def pause(
        self,
        step: int,
        state: train.TrainState,
        metrics: Mapping[str, Any] | None,
        params: Params,
        *,
        is_sound: Callable[[train.TrainState], bool] = lambda state: True,
    ) -> None:
        """Judge the run at a step, save it where that is due, and see whether it ends.

        Args:
            step: steps taken.
            state: the TrainState.
            metrics: of the validation part, where it was evaluated.
            params: the parameters that were evaluated.
            is_sound: whether a state may be saved, where that is not known already.

        Raises:
            NonFinite: a step since the last pause failed, or the state is not sound.
        """
        self.step = step
        if self._failure is not None:
            self._failure.state = state
            raise self._failure
        record, plan = self.record, self.plan
        improved, stopped, is_last = False, None, step == plan.steps
        if metrics is not None:
            improved = record.validation(step, metrics, params, state.model_state)
            # There is nothing to stop at the last step, of which `stop` shall know all the same.
            stopped = self._stopped(record.validations)
            stopped = None if is_last else stopped
        # Asked for once: what comes from here on is seen at the next pause, and saved there.
        asked = self.is_asked
        if improved or stopped or asked or is_last or step % plan.checkpoint_every == 0:
            if not is_sound(state):
                failure = train.NonFinite(step, f"step {step}: a parameter is not finite")
                failure.state = state
                raise failure
            record.save(step, state)
        for hook in plan.hooks:
            hook(Progress(step, state, tuple(record.rows), record.path))
        if stopped:
            self.status = stopped
        elif asked:
            self.status = "interrupted" if self._signals else "out of time"
        elif is_last:
            self.status = "finished"

    def _stopped(self, rows: list[Row]) -> str | None:
        """How the run ends by its plan before its last step, if it does."""
        said = self.plan.stop(rows) if self.plan.stop else False
        return said if isinstance(said, str) else "stopped early" if said else None


def _failure(step: int, metrics: Mapping[str, np.ndarray]) -> train.NonFinite:
    loss = float(metrics["loss"][-1])
    what = "an update is not finite" if np.isfinite(loss) else f"the loss is {loss:g}"
    return train.NonFinite(step, f"step {step}: {what}")
