"""Many train steps by one executable."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from functorch_kit import program
from functorch_kit.data import Diagnosis, Feed
from functorch_kit.train.form import Form
from functorch_kit.train.guard import is_sound
from functorch_kit.train.state import TrainState
from functorch_kit.train.step import TrainStep
from functorch_kit.types import HParams, Spec, spec_of

_BLOCK_BYTES = 64 << 20
_BLOCK_STEPS = 1024
_SOUND = "is_sound"

Fetch = Callable[[], dict[str, np.ndarray]]


class Stepper:
    """Advances a state by any number of steps with one compiled program.

    What the steps read crosses to the device in blocks of ``capacity`` rows, each once. In the
    ``chunk`` form one call of the program does any number of steps within a block, given as an
    argument; in the ``single`` form it does one. In both the state is donated, nothing waits for
    the device, and metrics stay there until they are fetched.

    Args:
        train_step: the pure step.
        pipeline: see ``functorch_kit.data.Pipeline``: its ``constant``, ``rows`` and ``batch``.
        hparams: hyperparameters, arrays or specs: only their shapes are compiled.
        state: a TrainState, arrays or specs.
        form: see ``choose_form``.
        is_checked: whether each call of the program also says if the state that it leaves is sound:
            for a ``Guard``, which otherwise asks for that by a program of its own.
        layout: on several devices, where everything lies, see ``distributed.Layout``; the state's
            specs then have shardings. None for one device.

    Attributes:
        program: the compiled program.
        capacity: the most steps that one call of the program can do.
        most_steps: the most steps that one call of this object did.
        offset: how many rows further than its own number a step reads; rollbacks skip rows.
        input_wait_seconds: time in which the device had nothing to do because rows were being made.
        compute_seconds: time from dispatch to result, dispatches that overlap counted once.

    Example:
        >>> import numpy as np, optax
        >>> from functorch_kit import data, nn, train
        >>> model, sgd = nn.dense(2), optax.sgd(0.1)
        >>> parts = data.arrays(np.eye(20), np.arange(20) % 2, batch_size=4)
        >>> state = train.init_state(model, sgd, parts.train.spec["x"])
        >>> step = train.make_train_step(train.classification(model), sgd)
        >>> stepper = train.Stepper(step, parts.train, {}, state, train.Form("chunk", "example"))
        >>> state, fetch = stepper({}, state, 0, 5)
        >>> int(state.step), fetch()["loss"].shape
        (5, (5,))
    """

    def __init__(
        self,
        train_step: TrainStep,
        pipeline: Any,
        hparams: HParams,
        state: Spec,
        form: Form,
        *,
        is_checked: bool = False,
        layout: Any = None,
    ):
        self.form, self.is_checked = form, is_checked
        self._pipeline, self._layout = pipeline, layout
        self._constant = self._put(pipeline.constant())
        most = getattr(pipeline, "most_block_steps", None)
        self.capacity = min(block_steps(pipeline.row_spec), most or _BLOCK_STEPS)
        rows = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self.capacity, *leaf.shape), leaf.dtype),
            pipeline.row_spec,
        )
        self._rows_lie = None
        if layout is not None:
            self._rows_lie = layout.of_batch(rows, pipeline, lead=1)
        self._feed = self._fed(pipeline)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        specs = [spec_of(hparams), spec_of(state), spec_of(self._constant), rows, number]
        if form.name == "chunk":
            function, specs = _chunk(train_step, pipeline.batch, self.capacity), [*specs, number]
        else:
            function = _single(train_step, pipeline.batch)
        if is_checked:
            function = _checked(function)
        out = None
        if layout is not None:
            rest = [layout.on_each(each) for each in (specs[0], specs[2], *specs[4:])]
            specs = [rest[0], specs[1], rest[1], layout.lying(rows, self._rows_lie), *rest[2:]]
            out = layout.outputs(specs[1])
        self.program = program.compile(
            function, *specs, name="train_step", donate=(1,), carry=1, out_shardings=out
        )
        self.most_steps = 0
        self.offset = 0
        self.input_wait_seconds = 0.0
        self.compute_seconds = 0.0
        self._block: tuple[int, Any] = (-1, None)
        self._running: Any = None  # an output of the last dispatch
        self._done = 0.0

    def on(self, pipeline: Any) -> Stepper:
        """The same program, fed by another pipeline of the same shapes, from its first row on.

        Raises:
            ValueError: its rows have another shape or dtype.
        """
        if pipeline.row_spec != self._pipeline.row_spec:
            raise ValueError(f"rows of {pipeline.row_spec} for a step of {self._pipeline.row_spec}")
        other = copy.copy(self)
        old, new = (jax.tree.leaves(each.constant()) for each in (self._pipeline, pipeline))
        if any(one is not another for one, another in zip(old, new, strict=True)):
            other._constant = self._put(pipeline.constant())
        other._pipeline, other._feed = pipeline, self._fed(pipeline)
        other._block, other._running = (-1, None), None
        other.offset, other.most_steps = 0, 0
        other.input_wait_seconds = other.compute_seconds = other._done = 0.0
        return other

    def __call__(
        self, hparams: HParams, state: TrainState, start: int, steps: int
    ) -> tuple[TrainState, Fetch]:
        """Do ``steps`` steps from step ``start`` on.

        Returns:
            The new state, and a function that waits for the steps and returns their metrics, each
            of shape (steps,). One of them is ``failed``, 0 or 1, where the loss of a step is not
            finite, or scaled gradients may overflow. In a checked one there is ``is_sound`` (), of
            the new state.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}: give a number from 1 up")
        self.most_steps = max(self.most_steps, steps)
        results: list[tuple[Any, int]] = []
        step, end = start + self.offset, start + self.offset + steps
        while step < end:
            offset = step % self.capacity
            rows = self._rows(step // self.capacity)
            count = min(end - step, self.capacity - offset) if self.form.name == "chunk" else 1
            numbers = [np.int32(offset), np.int32(count)][: 2 if self.form.name == "chunk" else 1]
            state, metrics = self.program(hparams, state, self._constant, rows, *numbers)
            results.append((metrics, count))
            step += count
        self._running = jax.tree.leaves(results[-1])[0]
        return state, self._fetch(results, time.perf_counter())

    def input(self) -> Diagnosis:
        """How the rows came, whether the steps waited for them, and what to change."""
        return self._feed.diagnosis(self.input_wait_seconds, self.compute_seconds)

    def _put(self, constant: Any) -> Any:
        return jax.device_put(constant) if self._layout is None else self._layout.put(constant)

    def _fed(self, pipeline: Any) -> Feed:
        if self._layout is None:
            return Feed(pipeline, self.capacity)
        reader, put = self._layout.reading(pipeline, self._rows_lie)
        return Feed(reader, self.capacity, put=put)

    def _rows(self, number: int) -> Any:
        """The block of rows with a number, on the device; it stays there for the next call."""
        if self._block[0] != number:
            self._block = (-1, None)  # the device holds the next two blocks at most, not three
            # Input was waited for only while the device had finished what it had been given before.
            running = self._running
            rows = self._feed(number, lambda: running is None or running.is_ready())
            self._block = (number, rows)
            self.input_wait_seconds += self._feed.waited_seconds
        return self._block[1]

    def _fetch(self, results: list[tuple[Any, int]], dispatched: float) -> Fetch:
        def fetch() -> dict[str, np.ndarray]:
            on_host = jax.tree.map(np.asarray, [metrics for metrics, _ in results])
            sound = [metrics.pop(_SOUND) for metrics in on_host] if self.is_checked else []
            began, self._done = max(dispatched, self._done), time.perf_counter()
            self.compute_seconds += self._done - began
            if self.form.name == "chunk":
                rows = [
                    jax.tree.map(lambda leaf, count=count: leaf[:count], metrics)
                    for metrics, (_, count) in zip(on_host, results, strict=True)
                ]
                joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
            else:
                joined = jax.tree.map(lambda *leaves: np.stack(leaves), *on_host)
            with np.errstate(invalid="ignore"):  # a batch of padding alone has no mean
                values = {name: np.asarray(metric.compute()) for name, metric in joined.items()}
            failed = ~np.isfinite(joined["loss"].total)
            if failed.any():
                values["failed"] = np.maximum(values.get("failed", 0), failed.astype(np.float32))
            return values | ({_SOUND: sound[-1]} if sound else {})

        return fetch


def block_steps(row_spec: Spec) -> int:
    """How many steps' rows make a block: at most 64 MB of them, and 1024.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> block_steps({"x": jax.ShapeDtypeStruct((256, 224, 224, 3), jnp.float32)})
        1
        >>> block_steps({"index": jax.ShapeDtypeStruct((64,), jnp.int32)})
        1024
    """
    row_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row_spec))
    return max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(row_bytes, 1)))


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments):
        state, metrics = function(*arguments)
        return state, {**metrics, _SOUND: is_sound(state)}

    return checked


def _single(train_step: TrainStep, batch_of: Callable[..., Any]) -> Callable[..., Any]:
    def single(hparams, state, constant, rows, index):
        return train_step(hparams, state, batch_of(constant, _row(rows, index)))

    return single


def _chunk(
    train_step: TrainStep, batch_of: Callable[..., Any], capacity: int
) -> Callable[..., Any]:
    """``count`` steps in one loop whose trip count is an argument, so that any number fits."""

    def chunk(hparams, state, constant, rows, first, count):
        def one(state: TrainState, index: Any) -> tuple[TrainState, Any]:
            return train_step(hparams, state, batch_of(constant, _row(rows, index)))

        def body(index, carry):
            state, history = carry
            state, metrics = one(state, first + index)
            return state, jax.tree.map(lambda h, m: h.at[index].set(m), history, metrics)

        after, metrics = jax.eval_shape(one, state, first)
        # The loop would refuse it as well, by its own names: loop_carry[0].params['kernel'].
        program.check_carry("train_step", "state", state, after)
        history = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), metrics)
        return lax.fori_loop(0, count, body, (state, history))

    return chunk


def _row(rows: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), rows)
