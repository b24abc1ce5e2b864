"""Schedules: optax's values, without a Python branch on any argument."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit.train import schedules

PEAK, STEPS, WARMUP = 0.3, 100, 10
SHARES: dict[str, Any] = {"initial": 0.2, "final": 0.05}
COUNTS = np.arange(STEPS + 20)


def _down(end: float, begin: int, length: int) -> optax.Schedule:
    return optax.linear_schedule(PEAK, PEAK * end, length, transition_begin=begin)


# Ours, beside what optax makes of the same numbers (whole ones, where optax rounds down).
CASES: dict[str, tuple[schedules.Schedule, optax.Schedule]] = {
    "constant": (
        schedules.constant(PEAK, warmup_steps=WARMUP, initial=0.2),
        optax.warmup_constant_schedule(0.2 * PEAK, PEAK, WARMUP),
    ),
    "constant without warm-up": (schedules.constant(PEAK), optax.constant_schedule(PEAK)),
    "linear": (
        schedules.linear(PEAK, STEPS, warmup_steps=WARMUP, **SHARES),
        optax.join_schedules(
            [optax.linear_schedule(0.2 * PEAK, PEAK, WARMUP), _down(0.05, 0, STEPS - WARMUP)],
            [WARMUP],
        ),
    ),
    "linear without warm-up": (
        schedules.linear(PEAK, STEPS, final=0.05),
        _down(0.05, 0, STEPS),
    ),
    "cosine": (
        schedules.cosine(PEAK, STEPS, warmup_steps=WARMUP, **SHARES),
        optax.warmup_cosine_decay_schedule(0.2 * PEAK, PEAK, WARMUP, STEPS, 0.05 * PEAK),
    ),
    "cosine without warm-up": (
        schedules.cosine(PEAK, STEPS),
        optax.cosine_decay_schedule(PEAK, STEPS),
    ),
    "one-cycle": (
        schedules.one_cycle(PEAK, STEPS),
        optax.cosine_onecycle_schedule(STEPS, PEAK),
    ),
    "one-cycle of other shares": (
        schedules.one_cycle(PEAK, STEPS, rise=0.5, initial=0.1, final=0.01),
        optax.cosine_onecycle_schedule(STEPS, PEAK, 0.5, 10.0, 10.0),
    ),
    "warm-up, stable, decay": (
        schedules.warmup_stable_decay(PEAK, STEPS, 30, warmup_steps=WARMUP, **SHARES),
        optax.join_schedules(
            [optax.linear_schedule(0.2 * PEAK, PEAK, WARMUP), _down(0.05, 70 - WARMUP, 30)],
            [WARMUP],
        ),
    ),
    "piecewise": (
        schedules.piecewise(PEAK, [60, 30], [0.1, 0.5]),
        optax.piecewise_constant_schedule(PEAK, {30: 0.5, 60: 0.1}),
    ),
}
TRACED: dict[str, tuple[Any, dict[str, float]]] = {
    "constant": (schedules.constant, {"warmup_steps": 7.0, "initial": 0.3}),
    "linear": (schedules.linear, {"steps": 50.0, "warmup_steps": 7.0, **SHARES}),
    "cosine": (schedules.cosine, {"steps": 50.0, "warmup_steps": 7.0, **SHARES}),
    "one_cycle": (schedules.one_cycle, {"steps": 50.0, "rise": 0.4, **SHARES}),
    "warmup_stable_decay": (
        schedules.warmup_stable_decay,
        {"steps": 50.0, "decay_steps": 9.0, "warmup_steps": 7.0, **SHARES},
    ),
    "piecewise": (
        lambda peak, boundary, factor, **rest: schedules.piecewise(
            peak, [boundary], [factor], **rest
        ),
        {"boundary": 20.0, "factor": 0.3, "warmup_steps": 7.0, "initial": 0.3},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_has_the_values_of_optax_in_float64(
    x64: None, standard_promotion: None, name: str
):
    ours: Any
    theirs: Any
    ours, theirs = CASES[name]
    for count in COUNTS:
        value = ours(jnp.int32(count))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, float(theirs(count)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", TRACED)
def test_every_argument_may_be_traced_and_a_sweep_may_map_over_it(name: str):
    make, plain = TRACED[name]
    settings = {key: jnp.float32(value) for key, value in plain.items()}
    steps = jnp.arange(60)

    def curve(peak, settings):
        return jax.vmap(make(peak, **settings))(steps)

    compiled: Any = jax.jit(curve)
    curve, peak = compiled, jnp.float32(PEAK)
    for key in settings:
        lanes = jnp.array([1.0, 0.5, 0.25], jnp.float32) * settings[key]
        axes = {other: 0 if other == key else None for other in settings}
        together = jax.vmap(curve, in_axes=(None, axes))(peak, {**settings, key: lanes})
        alone = [curve(peak, {**settings, key: lane}) for lane in lanes]
        np.testing.assert_allclose(together, alone, rtol=1e-6)
        assert not np.allclose(together[0], together[1]), key
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
def test_any_warm_up_begins_at_the_initial_value_and_reaches_the_peak(make: Any, warmup: int):
    rate = make(1.0, 100, warmup_steps=warmup)
    assert float(rate(0)) == (0.0 if warmup else 1.0)
    values = [float(rate(step)) for step in range(120)]
    if warmup < 100:
        assert values[warmup] == max(values) == 1.0
    assert all(0 <= value <= 1 for value in values)
    assert values[100:] == [0.0] * 20


def test_before_its_decay_a_longer_wsd_run_is_the_same():
    short = schedules.warmup_stable_decay(1.0, 100, 20, warmup_steps=5)
    long = schedules.warmup_stable_decay(1.0, 300, 60, warmup_steps=5)
    assert all(float(short(step)) == float(long(step)) for step in range(81))
    assert float(short(81)) < float(long(81))


def test_a_cosine_is_half_way_down_in_the_middle():
    rate = schedules.cosine(2.0, 1000, warmup_steps=200)
    assert float(rate(600)) == pytest.approx(1.0, rel=1e-6)
    assert float(rate(400)) == pytest.approx(1 + math.cos(math.pi / 4), rel=1e-6)


def test_a_schedule_counts_millions_of_steps():
    rate = schedules.linear(1.0, 10_000_000)
    assert float(rate(jnp.int32(9_999_999))) == pytest.approx(1e-7, abs=6e-8)


def test_factors_without_a_boundary_each_are_refused():
    with pytest.raises(ValueError, match="2 boundaries and 1 factors: give one factor"):
        schedules.piecewise(1.0, [1, 2], [0.5])


def test_a_schedule_drives_an_optimizer_of_optax(standard_promotion: None):
    optimizer = optax.sgd(schedules.linear(1.0, 4))
    weight = jnp.float32(0.0)
    state = optimizer.init(weight)
    sizes = []
    for _ in range(5):
        update, state = optimizer.update(jnp.float32(-1.0), state)
        sizes.append(float(jnp.asarray(update)))
    assert sizes == [1.0, 0.75, 0.5, 0.25, 0.0]
