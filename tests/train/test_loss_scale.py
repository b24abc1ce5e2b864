"""Loss scaling: a step that overflows moves nothing but the scale, which finds what fits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import nn
from functorch_kit.precision import Policy
from functorch_kit.train import Options, init_state, make_train_step, regression, sam
from functorch_kit.train.loss_scale import all_finite
from functorch_kit.types import Outcome

pytestmark = pytest.mark.usefixtures("standard_promotion")

MODEL = nn.serial(norm=nn.batch_norm(), head=nn.dense(1))
GOOD = {"x": jnp.arange(8.0)[:, None] / 8, "y": jnp.ones((8, 1))}
BAD_X = {"x": GOOD["x"].at[3, 0].set(jnp.nan), "y": GOOD["y"]}
BAD_Y = {"x": GOOD["x"], "y": GOOD["y"].at[3, 0].set(jnp.inf)}


@jax.custom_jvp
def _bad_on_the_way_back(x: jax.Array) -> jax.Array:
    return x


@_bad_on_the_way_back.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[0] * jnp.where(primals[0] > 2, jnp.nan, 1.0)


def _same(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(jnp.array_equal, a, b))


def _start(options: Options, model: nn.Model = MODEL):
    optimizer = optax.adam(0.1)
    step = jax.jit(make_train_step(regression(model), optimizer, options))
    return step, init_state(model, optimizer, GOOD["x"], options=options)


def test_an_overflow_of_scaled_gradients_halves_the_scale_and_is_no_failure():
    options = Options(precision=Policy(jnp.float16, loss_scale=2.0**24))
    step, state = _start(options)
    before, scales, refused = state.params, [], 0
    for _ in range(14):
        state, metrics = step({}, state, GOOD)
        scales.append(float(state.loss_scale.scale))
        refused += int(metrics["refused"].compute())
        assert float(metrics["failed"].compute()) == 0
    assert scales[0] == 2.0**23
    assert scales[-1] < 2.0**20
    assert refused == 24 - int(np.log2(scales[-1]))  # each halved it once
    assert int(state.step) == 14
    assert not _same(before, state.params)


def test_a_scale_that_fits_for_long_enough_is_doubled():
    policy = Policy(jnp.float16, loss_scale=8.0, growth_every=3)
    step, state = _start(Options(precision=policy))
    scales = []
    for _ in range(7):
        state, _ = step({}, state, GOOD)
        scales.append(float(state.loss_scale.scale))
    assert scales == [8, 8, 16, 16, 16, 32, 32]


def test_a_loss_that_is_not_finite_is_a_failure_whatever_the_scale():
    step, state = _start(Options(precision="fp16"))
    _, metrics = step({}, state, BAD_Y)
    assert float(metrics["failed"].compute()) == 1


def test_scaling_the_loss_does_not_change_the_step_beyond_rounding():
    steps = {}
    for scale in (None, 2.0**10):
        policy = Policy(jnp.float16, loss_scale=scale)
        step, state = _start(Options(precision=policy))
        steps[scale], _ = step({}, state, GOOD)
    plain, scaled = (state.params for state in steps.values())
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-3), plain, scaled))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf, 1e30])
def test_one_bad_number_among_many_is_found(value: float):
    assert not all_finite({"a": jnp.ones(5), "b": jnp.ones((100, 33)).at[77, 3].set(value)})
    assert all_finite({"a": jnp.ones(5), "n": jnp.arange(3), "h": jnp.full(3, 6e4, jnp.float16)})


def test_an_overflow_elsewhere_halves_the_scale():
    options, optimizer = Options(precision=Policy(jnp.float16, loss_scale=6e4)), sam(optax.sgd(0.1))

    def half_square(params: Any, model_state: Any, batch: Any, *, key: Any, train: bool) -> Outcome:
        loss = jnp.sum(0.5 * (params["w"] ** 2).astype(jnp.float32))
        return Outcome(loss, jnp.float32(1), model_state, {})

    # 6e4 fits at 1, and 6.3e4 at the worst point near it, 1.05, does; from 1.08 on it does not.
    weight = nn.Model(lambda key, x_spec: ({"w": jnp.ones(1)}, ()), lambda p, s, x, **_: (x, s))
    step = jax.jit(make_train_step(half_square, optimizer, options))
    state = init_state(weight, optimizer, GOOD["x"], options=options)
    fits, _ = step({}, state, GOOD)
    assert float(fits.loss_scale.scale) == 6e4
    assert float(fits.params["w"][0]) == pytest.approx(1 - 0.105, rel=1e-3)
    state = state.replace(params={"w": jnp.full(1, 1.08)})
    after, metrics = step({}, state, GOOD)
    assert _same(after.params, state.params)
    assert (float(after.loss_scale.scale), float(metrics["failed"].compute())) == (3e4, 0)


@pytest.mark.parametrize("bad", [BAD_X, BAD_Y], ids=["a NaN in x", "an infinite target"])
def test_a_step_that_fails_changes_neither_the_state_nor_the_scale(bad: Any):
    step, state = _start(Options(precision=Policy(jnp.float16, loss_scale=8.0), ema=0.9))
    state, _ = step({}, state, GOOD)
    after, metrics = step({}, state, bad)
    assert _same(after.replace(step=state.step, key=None), state.replace(key=None))
    assert int(after.step) == 2
    assert (float(metrics["failed"].compute()), float(metrics["refused"].compute())) == (1, 1)


def test_with_nothing_left_to_scale_down_an_overflow_is_a_failure():
    model = nn.serial(head=nn.dense(1), back=nn.lambda_(_bad_on_the_way_back))
    step, state = _start(Options(precision=Policy(jnp.float16, loss_scale=1.0)), model)
    bias = jnp.full_like(state.params["head"]["bias"], 9.0)
    state = state.replace(params={"head": {**state.params["head"], "bias": bias}})
    _, metrics = step({}, state, GOOD)
    assert jnp.isfinite(metrics["loss"].compute())
    assert float(metrics["failed"].compute()) == 1
