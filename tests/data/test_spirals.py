from __future__ import annotations

import numpy as np
import pytest

from functorch_kit import data


def test_points_without_noise_lie_where_the_formula_has_them():
    """Radius squared is time, and the angle is a turn of it; the other arm is the opposite."""
    made = data.spirals(count=5, noise=0.0, batch_size=5).train.arrays
    half = np.sqrt(0.5)
    # Times 0, 1/4, 1/2, 3/4 and 1: angles 0, 90, 180, 270 and 360 degrees.
    on_arm = np.array([[0, 0], [0, 0.5], [-half, 0], [0, -np.sqrt(0.75)], [1, 0]])
    sign = np.where(made["y"] == 1, 1.0, -1.0)[:, None]
    assert set(made["y"].tolist()) == {0, 1}
    np.testing.assert_allclose(made["x"], sign * on_arm, atol=1e-7)


def test_noise_moves_each_coordinate_by_its_standard_deviation():
    quiet, noisy = (data.spirals(count=5000, noise=noise).train.arrays for noise in (0.0, 0.05))
    np.testing.assert_array_equal(quiet["y"], noisy["y"])
    moved = noisy["x"] - quiet["x"]
    assert moved.std(axis=0) == pytest.approx([0.05, 0.05], rel=0.05)
    assert moved.mean(axis=0) == pytest.approx([0, 0], abs=0.003)
    assert np.corrcoef(moved.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_rotations_wind_the_arms():
    made = data.spirals(count=5, noise=0.0, rotations=2.0, batch_size=5).train.arrays
    sign = np.where(made["y"] == 1, 1.0, -1.0)
    # Half of the time is a whole turn, three quarters are one and a half.
    expected = [np.sqrt(0.5), -np.sqrt(0.75)]
    np.testing.assert_allclose((sign * made["x"][:, 0])[2:4], expected, atol=1e-6)


def test_both_arms_have_points_of_the_same_share():
    labels = data.spirals(count=4000).train.arrays["y"]
    assert labels.mean() == pytest.approx(0.5, abs=0.03)


def test_points_are_the_same_for_every_seed_and_their_order_is_not():
    one, again, other = (data.spirals(batch_size=20, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.train.arrays["x"], other.train.arrays["x"])
    np.testing.assert_array_equal(one.train(3)["x"], again.train(3)["x"])
    assert (one.train(3)["x"] != other.train(3)["x"]).any()


def test_all_points_train_unless_shares_are_held_out():
    made = data.spirals()
    assert (made.validation, made.test, made.class_names) == (None, None, ("0", "1"))
    assert (made.train.arrays["x"].dtype, made.train.arrays["y"].dtype) == (np.float32, np.int32)
    held_out = data.spirals(validation=0.1, test=0.2, batch_size=70)
    parts = (held_out.train, held_out.validation, held_out.test)
    assert [part.order.count for part in parts] == [70, 10, 20]


def test_shares_that_leave_no_points_are_refused():
    with pytest.raises(data.DataError, match="must be fractions that leave some to train on"):
        data.spirals(validation=0.5, test=0.5)
