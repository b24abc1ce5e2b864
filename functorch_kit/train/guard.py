"""Steps that fail: found after the fact, so that nothing stands in the way of those that do not."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.errors import UserError
from functorch_kit.types import HParams, PyTree

NONFINITE = ("off", "skip", "raise", "rollback")
_SECONDS_BETWEEN_COPIES = 2.0

Metrics = dict[str, np.ndarray]


class NonFinite(UserError, ArithmeticError):
    """A step gave a NaN or an infinity; the message says which step, where, and what to do.

    Attributes:
        step: number of the step, from 1 up.
        state: where steps are guarded, the TrainState before that step.

    Example:
        >>> str(NonFinite(7, "step 7: the loss is not finite"))
        'step 7: the loss is not finite'
    """

    exit_code = 3

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step
        self.state: Any = None


class Guard:
    """Goes back to the first step that failed, and past it.

    A step has failed if its loss is not finite, or if what it leaves behind is not sound, see
    ``is_sound``. Nothing of that is looked for inside a step. Each dispatch runs as if all went
    well, and what it left is looked at while the next one runs. Where that is not sound, the step
    is searched for from a copy of the state that is kept, by the same program on the same data: the
    states on the way are therefore the run's own, to the bit. The price is memory for one or two
    more states, a copy every two seconds, a look at the state for each dispatch, and after a
    failure the time to take the steps since the copy a few times again.

    Args:
        stepper: takes the steps; see ``Stepper``.
        skips: whether the run goes on behind the step, as if it had moved nothing; if not, it ends
            before it.
        clock: seconds, the same in all processes of the run: it says when copies are taken.

    Example:
        >>> import numpy as np, optax
        >>> from functorch_kit import data, nn, train
        >>> x = np.ones((8, 2), np.float32)
        >>> x[5] = np.nan
        >>> rows = data.Pipeline({"x": x, "y": x[:, :1]}, data.Sequential(8, 2))
        >>> model, sgd = nn.dense(1), optax.sgd(0.1)
        >>> state = train.init_state(model, sgd, rows.spec["x"])
        >>> step = train.make_train_step(train.regression(model), sgd)
        >>> stepper = train.Stepper(step, rows, {}, state, train.Form("chunk", "example"))
        >>> refused = []
        >>> for _, state in train.advance(
        ...     stepper, {}, state, 0, 4, every=[4], guard=Guard(stepper, skips=True),
        ...     log=lambda start, metrics: refused.extend(metrics["refused"].tolist())):
        ...     pass
        >>> refused, bool(is_sound(state)), int(state.step)
        ([0.0, 0.0, 1.0, 0.0], True, 4)
    """

    def __init__(
        self, stepper: Any, *, skips: bool, clock: Callable[[], float] = time.perf_counter
    ):
        self._stepper, self._skips, self._clock = stepper, skips, clock
        self._kept: tuple[int, Any] | None = None
        self._next: tuple[int, Any] | None = None  # not known to be sound as yet
        self._copied = 0.0

    def before(self, step: int, state: Any) -> None:
        """Told the state that the next dispatch starts from, before it is donated."""
        now = self._clock()
        if self._kept is None:
            self._kept, self._copied = (step, _copy(state)), now
        elif self._next is None and now - self._copied > _SECONDS_BETWEEN_COPIES:
            self._next, self._copied = (step, _copy(state)), now

    def after(self, state: Any) -> Any:
        """Whether a dispatch left a sound state, bool (), not waited for; or its metrics say it."""
        return True if self._stepper.is_checked else is_sound(state)

    def passed(self, end: int, metrics: Metrics) -> Metrics:
        """Told that no step failed in the dispatch up to ``end``; its metrics for the log."""
        if self._next and self._next[0] <= end:
            self._kept, self._next = self._next, None
        if not self._skips or "refused" in metrics:
            return metrics
        return metrics | {"refused": np.zeros_like(metrics["loss"], np.float32)}

    def found(self, hparams: HParams, start: int, metrics: Metrics) -> tuple[int, Any, Metrics]:
        """Go back to the first step that failed, in the dispatch that began at ``start``.

        Args:
            hparams: the hyperparameters.
            start: steps taken before the dispatch; the state was sound there.
            metrics: of its steps, each (steps,).

        Returns:
            The step to go on from, the state there, and the metrics up to the step that failed,
            that among them.
        """
        self._next, count = None, len(metrics["loss"])
        failed = np.asarray(metrics.get("failed", np.zeros(count))) > 0
        shown = start + int(failed.argmax()) + 1 if failed.any() else start + count
        bad, state = self._first_bad(hparams, start, shown)
        rows = {name: value[: bad - start] for name, value in metrics.items()}
        mark = np.zeros(bad - start, np.float32)
        mark[-1] = 1
        if not self._skips:
            return bad - 1, state, rows | {"failed": mark}
        rows.pop("failed", None)
        rows["refused"] = np.maximum(rows.get("refused", mark), mark)
        # As after any other step, but for what it would have changed.
        state = state.replace(step=state.step + 1)
        self._kept, self._copied = (bad, _copy(state)), self._clock()
        return bad, state, rows

    def _first_bad(self, hparams: HParams, start: int, shown: int) -> tuple[int, Any]:
        """The first step that failed and the state before it; at the latest the one that shows."""
        # A bad state stays bad, so that a search by halves finds where it began. First the two
        # places where it nearly always is: the step that shows, and the one before.
        sound, bad, state = start, shown, None
        guesses = [shown - 1, shown - 2]
        while bad - sound > 1:
            guess = guesses.pop(0) if guesses else (sound + bad) // 2
            if not sound < guess < bad:
                continue
            reached = self._state_at(hparams, guess)
            if is_sound(reached):
                sound, state = guess, reached
            else:
                bad = guess
        return bad, self._state_at(hparams, sound) if state is None else state

    def _state_at(self, hparams: HParams, step: int) -> Any:
        assert self._kept is not None
        first, kept = self._kept
        state = _copy(kept)  # the program takes over what it is given
        if step == first:
            return state
        # A stepper of its own: what it measures of the run is not changed.
        return copy.copy(self._stepper)(hparams, state, first, step - first)[0]


@jax.jit
def is_sound(state: Any) -> jax.Array:
    """Whether a TrainState has no NaN, and no infinity in what an objective computes with, bool ().

    An optimizer may hold an infinity, such as the best value so far.

    Example:
        >>> from functorch_kit.train import TrainState
        >>> bool(is_sound(TrainState(1, {"w": jnp.array([jnp.inf])}, (), (), None)))
        False
        >>> bool(is_sound(TrainState(1, {"w": jnp.ones(1)}, (), {"best": jnp.inf}, None)))
        True
    """

    def largest(tree: PyTree) -> list[Any]:
        # NaN where there is one; on a CPU, in a third of the time that `isfinite` takes.
        return [jnp.max(jnp.abs(leaf), initial=0) for leaf in _floats(tree)]

    finite = [most < jnp.inf for most in largest((state.params, state.model_state))]
    numbers = [~jnp.isnan(most) for most in largest((state.opt_state, state.ema))]
    return functools.reduce(jnp.logical_and, finite + numbers, jnp.ones((), bool))


@jax.jit
def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _floats(tree: PyTree) -> list[Any]:
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
