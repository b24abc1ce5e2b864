"""Series as they are drawn: smoothing by hand-worked numbers, thinning that loses no extreme."""

import math

import numpy as np
import pytest

from functorch_kit.report.series import Series, series_of, smooth


def test_smoothing_keeps_constants_and_straight_lines_where_they_are():
    assert np.allclose(smooth(np.full(50, 3.0), window=9), 3.0, atol=1e-12)
    line = smooth(np.arange(201.0), window=8)
    assert abs(line[100] - 100) < 1e-6


def test_smoothing_weighs_neighbours_by_halves_in_a_window_of_two():
    # Weights 1/4, 1/2, 1, 1/2, 1/4 around the middle, 2.5 in all.
    assert smooth([0.0, 0.0, 5.0, 0.0, 0.0], window=2)[2] == pytest.approx(2.0)


def test_smoothing_steps_over_what_is_not_finite():
    out = smooth([1.0, math.nan, 1.0, math.inf, 1.0], window=3)
    assert out.tolist() == pytest.approx([1.0] * 5)
    assert np.isnan(smooth([math.nan, math.nan], window=3)).all()
    assert smooth([], window=3).size == 0


def test_smoothing_takes_noise_away():
    noise = np.random.default_rng(0).normal(size=1000)
    assert smooth(noise, window=20).std() < noise.std() / 4


def test_each_metric_has_a_series_for_each_split_in_the_order_of_the_splits():
    found = series_of(
        [
            {"step": 1, "split": "other", "loss": 3.0},
            {"step": 2, "split": "test", "loss": 2.0, "note": "text", "best": True},
            {"step": 2, "split": "train", "loss": np.float32(0.5), "accuracy": 1},
            {"step": 4, "split": "train", "loss": math.inf},
        ]
    )
    assert list(found) == ["loss", "accuracy"]
    assert list(found["loss"]) == ["train", "test", "other"]
    train = found["loss"]["train"]
    assert train.steps.tolist() == [2.0, 4.0]
    assert train.values[0] == 0.5
    assert np.isnan(train.values[1])
    assert train.finite.tolist() == [0.5]


def test_a_row_whose_step_is_no_number_is_passed_over():
    assert series_of([{"step": "x", "split": "train", "loss": 1.0}]) == {}


def test_thinning_keeps_the_smallest_and_the_largest_of_each_stretch():
    values = np.ones(20_000)
    values[::2] += 0.1
    values[7_777], values[12_345], values[50] = 50.0, -50.0, math.nan
    thin = Series(np.arange(20_000.0), values).thinned(600)
    assert thin.steps.size <= 600
    assert thin.values[thin.steps == 7_777] == 50.0
    assert thin.values[thin.steps == 12_345] == -50.0
    assert (np.diff(thin.steps) > 0).all()


def test_a_stretch_without_a_finite_value_stays_a_gap():
    values = np.where(np.arange(1000) // 100 == 4, math.nan, 1.0)
    thin = Series(np.arange(1000.0), values).thinned(100)
    assert set(thin.steps[np.isnan(thin.values)] // 100) == {4.0}


def test_what_keeps_turning_is_noise_and_a_schedule_is_none():
    steps = np.arange(100.0)
    assert Series(steps, np.random.default_rng(0).uniform(1, 2, 100)).is_noisy
    assert not Series(
        steps, np.concatenate([np.linspace(0, 1, 50), np.linspace(1, 0, 50)])
    ).is_noisy
