from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from functorch_kit import data

pytest.importorskip("sklearn")


def _parts(given: data.Data) -> list[np.ndarray]:
    return [part.arrays["x"] for part in (given.train, given.validation, given.test)]


def test_the_digits_are_split_in_1258_and_180_and_359_without_overlap():
    digits = data.digits()
    parts = _parts(digits)
    assert [len(part) for part in parts] == [1258, 180, 359]
    # All 1,797 images differ, so an image in two parts would be missing from the union.
    images = {image.tobytes() for part in parts for image in part}
    assert len(images) == 1797
    shares = [
        np.bincount(part.arrays["y"], minlength=10) / part.order.count
        for part in (digits.train, digits.validation, digits.test)
    ]
    assert np.ptp(shares, axis=0).max() < 0.01


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    expected: Any = load_digits()
    images = {
        (image.tobytes(), int(label))
        for image, label in zip(expected.images, expected.target, strict=True)
    }
    digits = data.digits()
    for part in (digits.train, digits.validation, digits.test):
        x, y = part.arrays["x"], part.arrays["y"]
        assert (x.shape[1:], x.dtype, y.dtype) == ((8, 8, 1), np.float32, np.int32)
        assert (x.min(), x.max()) == (0, 1)
        assert {
            ((image[..., 0] * 16.0).astype(np.float64).tobytes(), int(label))
            for image, label in zip(x, y, strict=True)
        } <= images


def test_the_seed_shuffles_the_digits_and_leaves_the_split():
    one, other = data.digits(seed=0), data.digits(seed=1)
    for a, b in zip(_parts(one), _parts(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.train(0)["y"] != other.train(0)["y"]).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: data.synthetic_images(count=60, shape=(6, 7, 3), batch_size=8, seed=seed),
        lambda seed: data.gaussian(count=20, inputs=5, outputs=2, batch_size=8, seed=seed),
    ],
    ids=["synthetic_images", "gaussian"],
)
def test_made_data_are_the_same_every_time(make):
    one, again, other = make(0), make(0), make(1)
    np.testing.assert_array_equal(one.train.arrays["x"], again.train.arrays["x"])
    np.testing.assert_array_equal(one.train.arrays["x"], other.train.arrays["x"])
    np.testing.assert_array_equal(one.train(5)["x"], again.train(5)["x"])
    assert (one.train(5)["x"] != other.train(5)["x"]).any()


def test_synthetic_images_have_the_size_and_classes_that_were_asked_for():
    images = data.synthetic_images(count=100, shape=(5, 9, 2), classes=4, batch_size=8)
    assert images.train(0)["x"].shape == (8, 5, 9, 2)
    assert images.class_names == ("0", "1", "2", "3")
    assert data.synthetic_images(count=40, batch_size=8).train.arrays["x"].shape[1:] == (64, 64, 3)


def test_the_classes_of_synthetic_images_can_be_told_apart():
    """By the direction of the gradient, with no training: the stripes' angle is the class."""
    images = data.synthetic_images(count=200, shape=(32, 32, 1), classes=2, noise=0.0).train.arrays
    down = np.square(np.diff(images["x"], axis=1)).mean((1, 2, 3))
    across = np.square(np.diff(images["x"], axis=2)).mean((1, 2, 3))
    assert ((across > down) == images["y"]).all()


def test_gaussian_data_are_standard_normal_and_all_train():
    made = data.gaussian(count=500, inputs=100)
    assert (made.validation, made.test) == (None, None)
    assert made.train.order.count == 500
    assert made.train.arrays["x"].mean() == pytest.approx(0, abs=0.02)
    assert made.train.arrays["x"].std() == pytest.approx(1, abs=0.02)
