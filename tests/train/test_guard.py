"""Steps that fail are found after the fact, at their number, and nothing of them stays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import data, nn, train
from functorch_kit.train import Form, Guard, TrainState, guard
from functorch_kit.types import Model, Outcome

pytestmark = pytest.mark.usefixtures("standard_promotion")

MODEL = nn.serial(norm=nn.batch_norm(), head=nn.dense(1))
BATCH, STEPS = 2, 24


def _rows(bad: tuple[int, ...], value: float = np.nan) -> data.Pipeline:
    """Batches in order; those of the steps in ``bad``, counted from 1, hold a bad value."""
    x = np.random.default_rng(0).normal(size=(STEPS * BATCH, 3)).astype(np.float32)
    y = x.sum(1, keepdims=True)
    for step in bad:
        x[(step - 1) * BATCH, 0] = value
    return data.Pipeline({"x": x, "y": y}, data.Sequential(len(x), BATCH))


def _by_hand(rows: Any, bad: tuple[int, ...], optimizer: Any, objective: Any, model: Any) -> Any:
    """The states from the first to the last, by a loop that passes over the steps in ``bad``."""
    step = jax.jit(train.make_train_step(objective, optimizer))
    states = [train.init_state(model, optimizer, rows.spec["x"])]
    for number in range(STEPS):
        state = states[-1]
        after = state.replace(step=state.step + 1)
        states.append(after if number + 1 in bad else step({}, state, rows(number))[0])
    return states


class Run:
    """A run of all steps under a guard."""

    def __init__(
        self,
        rows: Any,
        *,
        form: str = "chunk",
        every: int = STEPS,
        skips: bool = True,
        optimizer: Any = None,
        objective: Any = None,
        model: Model = MODEL,
        is_checked: bool = True,
    ):
        optimizer, objective = optimizer or optax.adam(0.1), objective or train.regression(model)
        step = train.make_train_step(objective, optimizer)
        state = train.init_state(model, optimizer, rows.spec["x"])
        chosen = Form(form, "asked for")
        stepper = train.Stepper(step, rows, {}, state, chosen, is_checked=is_checked)
        self.refused: list[int] = []
        self.failed: list[int] = []
        self.steps: list[int] = []
        for step, state in train.advance(  # noqa: B020 (where the last step leaves them)
            stepper,
            {},
            state,
            0,
            STEPS,
            every=[every],
            log=self._log,
            guard=Guard(stepper, skips=skips),
        ):
            self.step, self.state = step, state

    def _log(self, start: int, metrics: Any) -> None:
        numbers = start + 1 + np.arange(len(metrics["loss"]))
        self.steps += numbers.tolist()
        self.refused += numbers[metrics.get("refused", np.zeros(len(numbers))) > 0].tolist()
        self.failed += numbers[metrics.get("failed", np.zeros(len(numbers))) > 0].tolist()


def _content(state: Any) -> Any:
    return state.step, state.params, state.model_state, state.opt_state


def _close(a: Any, b: Any) -> bool:
    leaves = zip(jax.tree.leaves(_content(a)), jax.tree.leaves(_content(b)), strict=True)
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in leaves)


@pytest.mark.parametrize("form", ["chunk", "single"])
@pytest.mark.parametrize(
    "bad",
    [(1,), (7,), (STEPS,), (2, 3), (1, 2, 10, 11, 12, 24), tuple(range(1, STEPS + 1))],
    ids=str,
)
def test_a_step_that_fails_moves_nothing_and_the_others_go_on(bad: tuple[int, ...], form: str):
    rows = _rows(bad)
    run = Run(rows, form=form)
    assert run.refused == list(bad)
    assert run.steps == list(range(1, STEPS + 1))
    states = _by_hand(rows, bad, optax.adam(0.1), train.regression(MODEL), MODEL)
    assert _close(run.state, states[-1])


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_neither_pauses_nor_copies_nor_checks_change_a_bit(every: int, seconds: float, monkeypatch):
    rows = _rows((6, 7, 20))
    whole = Run(rows, is_checked=False)
    monkeypatch.setattr(guard, "_SECONDS_BETWEEN_COPIES", seconds)
    parts = Run(rows, every=every)
    assert parts.refused == whole.refused == [6, 7, 20]
    same = jax.tree.map(np.array_equal, _content(parts.state), _content(whole.state))
    assert jax.tree.all(same)


@pytest.mark.parametrize("form", ["chunk", "single"])
@pytest.mark.parametrize("bad", [1, 11])
def test_a_run_that_ends_there_has_the_state_before_the_step(bad: int, form: str):
    rows = _rows((bad, 15))
    run = Run(rows, form=form, skips=False)
    assert (run.step, run.failed, run.steps) == (bad - 1, [bad], list(range(1, bad + 1)))
    states = _by_hand(rows, (), optax.adam(0.1), train.regression(MODEL), MODEL)
    assert _close(run.state, states[bad - 1])


def test_a_run_without_a_failure_is_that_without_a_guard():
    run = Run(_rows(()))
    assert (run.refused, run.failed, run.step) == ([], [], STEPS)


@jax.custom_jvp
def _bad_on_the_way_back(x: jax.Array) -> jax.Array:
    return x


@_bad_on_the_way_back.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[0] * jnp.where(primals[0] > 8, jnp.nan, 1.0)


WEIGHT = nn.Model(lambda key, x_spec: ({"w": jnp.ones(2)}, ()), lambda p, s, x, **_: (x, s))


def _wall(params: Any, model_state: Any, batch: Any, *, key: Any, train: bool) -> Outcome:
    """A linear loss; where the batch holds a 9, it is finite and its gradient is not."""
    at = _bad_on_the_way_back(params["w"] * 0 + jnp.max(batch["x"]))
    return Outcome(jnp.sum(params["w"] + at * 1e-3), jnp.float32(1), model_state, {})


def test_a_gradient_that_is_not_finite_is_the_failure_of_its_own_step_although_the_loss_is():
    run = Run(_rows((9, 17), 9.0), objective=_wall, model=WEIGHT, optimizer=optax.sgd(0.1))
    assert run.refused == [9, 17]
    # The gradient is 1 everywhere: 22 steps of 0.1.
    assert np.allclose(run.state.params["w"], 1 - 22 * 0.1, atol=1e-5)


def test_a_gradient_that_an_optimizer_only_keeps_fails_where_it_was_taken():
    optimizer = optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation()
    run = Run(_rows((9, 18), 9.0), objective=_wall, model=WEIGHT, optimizer=optimizer)
    assert run.refused == [9, 18]
    # 22 gradients are 5 updates of 0.1 times their mean, and two that wait.
    assert np.allclose(run.state.params["w"], 1 - 5 * 0.1, atol=1e-5)


def test_an_update_that_is_not_finite_fails_although_loss_and_gradient_are():
    optimizer = optax.sgd(lambda count: jnp.where(count == 4, jnp.inf, 0.1))
    run = Run(_rows(()), objective=_wall, model=WEIGHT, optimizer=optimizer, skips=False)
    assert (run.step, run.failed) == (4, [5])


def test_an_optimizer_may_start_from_an_infinity():
    plateau = optax.contrib.reduce_on_plateau(patience=2)
    optimizer = optax.chain(optax.sgd(0.1), plateau)
    assert Run(_rows((5,)), optimizer=optimizer).refused == [5]


def test_the_search_reaches_back_over_blocks_of_rows():
    class InBlocks(data.Pipeline):
        most_block_steps = 3

    whole = _rows((4, 11))
    rows = InBlocks(whole.arrays, whole.order)
    run = Run(rows)
    assert run.refused == [4, 11]
    assert jax.tree.all(
        jax.tree.map(np.array_equal, _content(run.state), _content(Run(whole).state))
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_one_bad_number_among_many_is_seen(value: float, dtype: Any):
    good = jnp.ones((33, 7), dtype)
    bad = good.at[20, 3].set(value)
    state = TrainState(jnp.int32(1), {"a": good, "none": jnp.zeros((0, 3))}, (), (), None)
    assert guard.is_sound(state)
    assert not guard.is_sound(state.replace(params={"a": bad}))
    # An optimizer may hold an infinity.
    assert bool(guard.is_sound(state.replace(opt_state=bad))) == (not np.isnan(value))


@pytest.mark.parametrize("place", ["params", "model_state", "opt_state", "ema"])
def test_one_nan_anywhere_in_a_state_is_seen(place: str):
    state = train.init_state(MODEL, optax.adam(0.1), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert guard.is_sound(state.replace(ema={"w": jnp.ones(3)}))
    bad = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, jnp.nan) if leaf.dtype == jnp.float32 else leaf,
        {"w": jnp.ones(3)} if place == "ema" else getattr(state, place),
    )
    assert not guard.is_sound(state.replace(**{place: bad}))
