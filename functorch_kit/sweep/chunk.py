"""So many lanes of one program, from wherever each stands to its end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from functorch_kit import train
from functorch_kit.data import Data
from functorch_kit.lane import Lane
from functorch_kit.record import Row
from functorch_kit.sweep.lanes import LanePrograms, stacked, taken
from functorch_kit.types import PyTree


class Chunk:
    """Lanes on their way.

    Args:
        lanes: one for each run; the program may have more lanes, which stay dead.
        programs: compiled for them.
        values: hyperparameters by name, each (lanes of the program,).
        states: with a lane axis as well.
        data: of one of them: the held-out parts are those of all.
        signals: filled from outside when all are to stop.
        tell: called with a lane's index and its validation rows, the newest among them, for every
            lane before any of them is judged by it.
        is_sound: whether a lane's state may be saved.

    Attributes:
        failures: index of a lane -> the step that ended it.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        programs: LanePrograms,
        values: PyTree,
        states: PyTree,
        data: Data,
        *,
        signals: Sequence[Any],
        tell: Callable[[int, list[Row]], None] = lambda lane, rows: None,
        is_sound: Callable[[train.TrainState], bool] = lambda state: True,
    ):
        self.lanes, self.programs, self.values, self.states = lanes, programs, values, states
        self.failures: dict[int, train.NonFinite] = {}
        self._data, self._signals, self._tell, self._is_sound = data, signals, tell, is_sound
        self._alive: list[int] = []

    def run(self, enough: Callable[[int], bool] = lambda alive: False) -> None:
        """Take steps until every lane has ended, a signal comes, or ``enough(lanes left)``.

        A lane that goes on from a later step than others waits for them there.
        """
        waiting = {index: lane.step for index, lane in enumerate(self.lanes) if not lane.status}
        if not waiting:
            return
        plan = next(lane.plan for lane in self.lanes)
        points = sorted({*waiting.values(), plan.steps})
        for begin, end in itertools.pairwise(points):
            self._alive += [index for index, first in waiting.items() if first == begin]
            for step, states in self._segment(begin, end):
                self._pause(step, states)
                if not self._alive or self._signals or enough(len(self._alive)):
                    break
            if self._signals or (self._alive and enough(len(self._alive))):
                return

    def test(self) -> list[dict[str, Any]]:
        """The metrics of each lane's best parameters on the test part, {} where there is none."""
        states, programs = self.states, self.programs
        if not (programs.evaluator and self._data.test):
            return [{} for _ in self.lanes]
        params = self._params(states)
        best = [
            lane.record.best_of(taken(params, index), taken(states.model_state, index))
            for index, lane in enumerate(self.lanes)
        ]
        best += [best[0]] * (programs.count - len(best))
        arguments = programs.placed(stacked([_on_one_device(each) for each in best]))
        return programs.evaluator(self._data.test, self.values, *arguments)[: len(self.lanes)]

    def state(self, index: int) -> train.TrainState:
        """A lane's state."""
        return _on_one_device(taken(self.states, index))

    def best(self, index: int) -> tuple[PyTree, PyTree]:
        """The parameters and the model state of a lane's best step."""
        state = self.state(index)
        params = _on_one_device(taken(self._params(self.states), index))
        return self.lanes[index].record.best_of(params, state.model_state)

    def _segment(self, begin: int, end: int):
        plan, alive = self.lanes[0].plan, list[int]()
        mask: Any = None

        def stepper(values: PyTree, states: PyTree, start: int, steps: int) -> Any:
            nonlocal alive, mask
            if mask is None or alive != self._alive:
                alive = list(self._alive)
                mask = self.programs.placed(np.isin(np.arange(self.programs.count), alive))
            arguments = {"values": values, "alive": mask}
            after, fetch = self.programs.stepper(arguments, states, start, steps)
            self.states = after
            return after, fetch

        def asked() -> bool:
            return bool(self._signals) or all(self.lanes[each].is_asked for each in self._alive)

        return train.advance(
            stepper,
            self.values,
            self.states,
            begin,
            end,
            every=(plan.eval_every, plan.checkpoint_every),
            log=self._log,
            asked=asked,
        )

    def _log(self, start: int, metrics: Mapping[str, np.ndarray]) -> None:
        for index in self._alive:
            own = {name: value[:, index] for name, value in metrics.items()}
            self.lanes[index].log(start, own)

    def _pause(self, step: int, states: PyTree) -> None:
        plan, programs = self.lanes[0].plan, self.programs
        metrics: list[dict[str, Any]] | None = None
        params = self._params(states)
        if programs.evaluator and self._data.validation and plan.evaluates_at(step):
            evaluated = (self.values, params, states.model_state)
            metrics = programs.evaluator(self._data.validation, *evaluated)
            for index in self._alive:
                rows = self.lanes[index].record.validations
                self._tell(index, [*rows, {"step": step, **metrics[index]}])
        still = list[int]()
        for index in self._alive:
            lane, state = self.lanes[index], self.state(index)
            own = state.params
            if programs.evaluation_params:
                own = _on_one_device(taken(params, index))
            found = metrics[index] if metrics else None
            try:
                lane.pause(step, state, found, own, is_sound=self._is_sound)
            except train.NonFinite as failure:
                self.failures[index] = failure
                lane.status = "diverged"
            if lane.status is None:
                still.append(index)
        self._alive = still

    def _params(self, states: PyTree) -> PyTree:
        average = self.programs.evaluation_params
        return average(states) if average else states.params


def _on_one_device(tree: PyTree) -> PyTree:
    """A lane that was cut out of a tree on several devices is of no use to a solo run there."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    if all(len(leaf.devices()) == 1 for leaf in leaves):
        return tree
    return jax.device_put(tree, jax.local_devices()[0])
