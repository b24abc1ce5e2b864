"""What a run knows of itself: its rows, its best step, its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import checkpoint, report
from functorch_kit.errors import UserError
from functorch_kit.report.records import strict
from functorch_kit.run import RunFolder
from functorch_kit.train import TrainState, trend
from functorch_kit.types import ModelState, Params, PyTree, Spec

Row = dict[str, Any]


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    """Buffers of its own, which the donation of the originals does not touch."""
    return jax.tree.map(jnp.copy, tree)


class Record:
    """Logs rows, tells the best step from the others, saves and restores.

    Args:
        run: the run's folder, or None to keep everything in memory.
        console: a ``report.RunConsole``.
        best: metric of the validation rows, and ``"min"`` or ``"max"``.
        log_every: steps between logged training rows.
        first: the step of the checkpoint that the run goes on from, 0 for a new run.
        seconds: time that the run has taken already, if more than its checkpoint knows of.

    Example:
        >>> import jax.numpy as jnp
        >>> record = Record(None, report.RunConsole("example", 10, quiet=True), ("loss", "min"), 1)
        >>> params = {"w": jnp.ones(1)}
        >>> record.validation(5, {"loss": 0.3}, params, ())
        True
        >>> record.validation(6, {"loss": 0.4}, params, ())
        False
        >>> record.best_step
        5
    """

    def __init__(
        self,
        run: RunFolder | None,
        console: report.RunConsole,
        best: tuple[str, str],
        log_every: int,
        first: int = 0,
        seconds: float = 0.0,
    ):
        self.run, self.console = run, console
        self.rows: list[Row] = []
        self.first = first
        self.best_step: int | None = None
        self._best: tuple[Params, ModelState] | None = None
        self._best_value = float("nan")
        self._criterion = best
        self._metric, self._sign = best[0], 1.0 if best[1] == "min" else -1.0
        self.data_offset = 0
        self.refused_steps: int | None = None
        self._trend: str | None = None
        self._scores: dict[int, float] = {}  # of the last validated step
        self._log_every = log_every
        self._began, self._seconds_before = time.perf_counter(), seconds
        self._writers: list[Any] = []
        if run and run.team.is_main:
            metrics = run.path / "metrics.jsonl"
            log = report.MetricsLog(metrics, keep_through=self.first if self.first else None)
            purge = self.first + 1 if self.first else None
            board = report.TensorBoardLog(run.path / "tensorboard", purge_step=purge)
            self._writers = [log, board]
        if run:
            run.team.said(None)  # the log is cut to the rows up to the first step
            if self.first:
                self.rows = report.read_metrics(run.path / "metrics.jsonl")

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The run's folder, if it has one."""
        return self.run.path if self.run else None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run so far, over all its parts."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def validations(self) -> list[Row]:
        """The validation rows so far."""
        return [row for row in self.rows if row["split"] == "validation"]

    def train(self, start: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Log those steps of a dispatch that are due; metrics are (steps,), from ``start`` on."""
        if self.run:
            self.run.store.check()  # a save that failed ends the run now, not at the next one
        count = len(next(iter(metrics.values())))
        if "refused" in metrics:
            self.refused_steps = (self.refused_steps or 0) + int(metrics["refused"].sum())
        for index in range(-(start + 1) % self._log_every, count, self._log_every):
            values = {name: value[index] for name, value in metrics.items() if value.ndim == 1}
            self._write(start + index + 1, "train", values)
        last = {name: value[-1] for name, value in metrics.items() if value.ndim == 1}
        self.console.update(start + count, last)

    def validation(
        self, step: int, metrics: Mapping[str, Any], params: Params, model_state: ModelState
    ) -> bool:
        """Log an evaluation; whether it is the best so far, whose parameters are then kept."""
        row = self._write(step, "validation", {k: v for k, v in metrics.items() if np.ndim(v) == 0})
        value = self._sign * row[self._metric]
        self._scores = {step: value}
        improved = (
            self.best_step is None or value < self._best_value or math.isnan(self._best_value)
        )
        if improved:
            self.best_step, self._best_value = step, value
            self._best = _copy((params, model_state))
        self.console.evaluation({**row, "best": improved})
        before, self._trend = (
            self._trend,
            trend(self.validations, metric=self._metric, mode=self._criterion[1]),
        )
        if self._trend and self._trend != before:
            self.console.line(f"validation {self._metric}: {self._trend}")
        return improved

    def save(self, step: int, state: TrainState) -> None:
        """Save the state as the latest checkpoint, with its score if it was validated."""
        if not self.run:
            return
        for writer in self._writers:
            writer.flush()
        meta = {
            "best": list(self._criterion),
            "best_step": self.best_step,
            "best_value": strict(self._best_value),
            "seconds": self.seconds,
            "data_offset": self.data_offset,
            "refused_steps": self.refused_steps,
            "config": self.run.config,
        }
        self.run.store.save(step, state, meta=meta, score=self._scores.get(step))

    def restore(
        self, like: Spec, evaluated: Callable[[TrainState], Params] = lambda state: state.params
    ) -> TrainState:
        """The newest checkpoint, and with it the best one.

        Args:
            like: shapes and dtypes of the state.
            evaluated: the parameters of a state that are evaluated.

        Raises:
            UserError: the best step was chosen by another metric, or the other way round.
        """
        assert self.run is not None
        store = self.run.store
        state, meta = store.restore(self.first, like)
        if meta["best"] != list(self._criterion):
            raise UserError(
                f"the run has chosen its best step by {tuple(meta['best'])}, which cannot be"
                f" compared with {tuple(self._criterion)}: resume it with the former"
            )
        self._seconds_before = max(self._seconds_before, meta["seconds"])
        self.data_offset, self.refused_steps = meta["data_offset"], meta["refused_steps"]
        self.best_step, self._best_value = meta["best_step"], float(meta["best_value"])
        if self.best_step is not None:
            try:
                again = self.best_step == self.first
                best = state if again else store.restore(self.best_step, like)[0]
                self._best = _copy((evaluated(best), best.model_state))
            except checkpoint.CheckpointError as error:
                self.console.line(f"the best step is lost, the next evaluation is it: {error}")
                self.best_step, self._best_value = None, float("nan")
        return state

    def best_of(self, params: Params, model_state: ModelState) -> tuple[Params, ModelState]:
        """Parameters and model state of the best step; those given where nothing was validated."""
        return self._best or (params, model_state)

    def summary(self, status: str, step: int, test: Mapping[str, Any]) -> dict[str, Any]:
        """What ``summary.json`` says: how the run ended, and the metrics of its best step."""
        best = [row for row in self.validations if row["step"] == self.best_step]
        splits = {"validation": best[-1] if best else {}, "test": test}
        metrics = {
            f"{split}_{name}": value
            for split, values in splits.items()
            for name, value in values.items()
            if name not in ("step", "split") and np.ndim(value) == 0
        }
        best_step = step if self.best_step is None else self.best_step
        facts = {"status": status, "steps": step, "best_step": best_step, "seconds": self.seconds}
        if self.refused_steps is not None:
            facts["refused_steps"] = self.refused_steps
        if self._trend:
            facts["trend"] = self._trend
        return {**metrics, **facts}

    def close(self) -> None:
        """Finish every file; wait for a save under way."""
        for writer in self._writers:
            writer.close()
        if self.run:
            self.run.store.wait()

    def _write(self, step: int, split: str, metrics: Mapping[str, Any]) -> Row:
        row = {"step": step, "split": split, **{name: float(v) for name, v in metrics.items()}}
        self.rows.append(row)
        for writer in self._writers:
            writer.write(row)
        return row
