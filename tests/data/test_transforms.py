"""Transforms are functions of (seed, step, record), and do what their papers say."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import data, nn, train
from functorch_kit.data import ArraySource, Transformed
from functorch_kit.data.order import keys_of
from functorch_kit.data.randaugment import OPERATIONS, changed

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = (np.arange(40) % 4).astype(np.int32)
SOME: dict[str, Any] = {"crop": 2, "flip": True, "mixup": 0.4}
EVERYTHING: dict[str, Any] = {**SOME, "cutout": 2, "rand_augment": 9, "cutmix": 1.0}


def _keys(count: int, seed: int = 0) -> Any:
    return jax.random.split(jax.random.key(seed), count)


def _parts(resident: bool | None = None, seed: int = 0, **options: Any) -> data.Data:
    every, drawn = data.image_transforms(shape=(6, 5, 3), **options)
    source = ArraySource({"x": IMAGES, "y": LABELS})
    return data.from_source(
        source, batch_size=8, seed=seed, every=every, train=drawn, resident=resident
    )


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_the_batch_inside_a_program_is_the_batch_on_the_host_at_any_step(resident: bool):
    pipeline = _parts(resident, **EVERYTHING if resident else SOME).train
    constant = jax.device_put(pipeline.constant())
    inside = jax.jit(pipeline.batch)
    rows = pipeline.rows(5, 3)
    for offset in range(3):
        batch = inside(constant, {name: leaf[offset] for name, leaf in rows.items()})
        outside = pipeline(5 + offset)
        assert set(batch) == set(outside) == set(pipeline.spec)
        for name, values in outside.items():
            np.testing.assert_allclose(batch[name], values, atol=1e-6)
            spec = pipeline.spec[name]
            assert (values.shape, values.dtype) == (spec.shape, spec.dtype)
    for name, spec in pipeline.row_spec.items():
        assert (rows[name].shape[1:], rows[name].dtype) == (spec.shape, spec.dtype)


def test_a_draw_depends_on_seed_step_and_record_alone():
    one, same, other = (_parts(seed=seed, **SOME).train for seed in (3, 3, 4))
    np.testing.assert_array_equal(one(7)["x"], same(7)["x"])
    assert (one(7)["x"] != other(7)["x"]).any()
    # The same record draws the same at one step wherever in the batch it stands, and else later.
    keys = keys_of(0, np.array([[5], [6]]), np.array([[1, 2, 1]]))
    assert (keys[0, 0] == keys[0, 2]).all()
    assert len({tuple(key) for key in keys.reshape(-1, 2).tolist()}) == 4


def test_evaluation_draws_nothing():
    parts = _parts(**SOME)
    assert not parts.validation.random
    np.testing.assert_array_equal(parts.validation(0)["x"], parts.validation(0)["x"])
    assert "transform_key" not in parts.validation.rows(0, 1)
    plain = _parts().validation
    np.testing.assert_array_equal(parts.validation(0)["x"], plain(0)["x"])


def test_bytes_cross_to_the_device_as_bytes():
    pipeline = _parts(False, **SOME).train
    assert pipeline.rows(0, 1)["x"].dtype == np.uint8
    assert pipeline(0)["x"].dtype == np.float32


def test_a_crop_is_a_shift_with_zeros_and_every_shift_comes():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4, 1).repeat(200, 0)
    moved = np.asarray(data.random_crop(1)(_keys(200), {"x": x})["x"])[..., 0]
    padded = np.pad(np.arange(1.0, 13.0).reshape(3, 4), 1)
    shifts = {(i, j): padded[i : i + 3, j : j + 4] for i in range(3) for j in range(3)}
    seen = [next(k for k, v in shifts.items() if (v == image).all()) for image in moved]
    assert set(seen) == set(shifts)


def test_a_flip_comes_in_half_of_the_images():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1).repeat(400, 0)
    flipped = np.asarray(data.random_flip()(_keys(400), {"x": x})["x"])
    is_flipped = (flipped == np.asarray(x)[:, :, ::-1]).all((1, 2, 3))
    assert ((flipped == np.asarray(x)).all((1, 2, 3)) ^ is_flipped).all()
    assert 150 < is_flipped.sum() < 250


def test_cutout_is_one_rectangle_of_zeros_no_larger_than_asked_for():
    cut = np.asarray(data.cutout(3)(_keys(100), {"x": jnp.ones((100, 8, 8, 2))})["x"])
    for image in cut:
        rows, columns = np.nonzero(image[..., 0] == 0)
        assert 1 <= np.ptp(rows) + 1 <= 3
        assert 1 <= np.ptp(columns) + 1 <= 3
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert (image[..., 0] == image[..., 1]).all()


def test_mixup_weighs_pixels_and_labels_alike():
    x = jnp.asarray(RANDOM.normal(size=(9, 2, 2, 1)), jnp.float32)
    mixed = data.mixtures(mixup=0.7)(_keys(9), {"x": x, "y": jnp.arange(9)})
    share = np.asarray(mixed["share"])[:, None, None, None]
    expected = share * np.asarray(x) + (1 - share) * np.asarray(x)[::-1]
    np.testing.assert_allclose(mixed["x"], expected, atol=1e-6)
    assert mixed["y_other"].tolist() == [*range(8, -1, -1)]
    assert ((share >= 0) & (share <= 1)).all()


def test_the_share_of_mixup_is_beta_distributed():
    x, y = jnp.zeros((4000, 1, 1, 1)), jnp.zeros(4000, jnp.int32)
    share = np.asarray(data.mixtures(mixup=0.5)(_keys(4000), {"x": x, "y": y})["share"])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / 8, abs=0.01)


def test_cutmix_counts_the_pixels_that_are_seen():
    x = jnp.concatenate([jnp.zeros((50, 6, 7, 2)), jnp.ones((50, 6, 7, 2))])
    mixed = data.mixtures(cutmix=1.0)(_keys(100), {"x": x, "y": jnp.arange(100)})
    own: Any = np.asarray(mixed["x"] == x).all(-1)
    np.testing.assert_allclose(own.mean((1, 2)), mixed["share"], atol=1e-6)
    for mask in np.logical_not(own):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert 0.3 < float(mixed["share"].mean()) < 0.8


def test_the_loss_of_a_mixture_is_that_of_both_classes_by_their_share():
    logits = jnp.asarray(RANDOM.normal(size=(5, 3)), jnp.float32)
    y, other = jnp.array([0, 1, 2, 0, 1]), jnp.array([1, 1, 0, 2, 2])
    share = jnp.array([1.0, 0.3, 0.5, 0.0, 0.9])
    objective = train.classification(nn.identity)
    batch = {"x": logits, "y": y, "y_other": other, "share": share}
    found = objective({}, (), batch, key=jax.random.key(0), train=True).loss_sum
    log_p = np.asarray(logits) - np.log(np.exp(np.asarray(logits)).sum(-1, keepdims=True))
    soft = np.zeros((5, 3))
    soft[np.arange(5), y] += np.asarray(share)
    soft[np.arange(5), other] += 1 - np.asarray(share)
    assert float(found) == pytest.approx(-(soft * log_p).sum(), rel=1e-5)


IMAGE = jnp.asarray(RANDOM.uniform(size=(9, 8, 3)), jnp.float32)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_of_strength_zero_changes_nothing_that_has_a_strength(operation: str):
    found = changed(operation, IMAGE, 0.0)
    assert found.shape == IMAGE.shape
    if operation in ("autocontrast", "equalize"):
        return
    atol = 1 / 255 if operation == "posterize" else 1e-5
    np.testing.assert_allclose(found, IMAGE, atol=atol)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_stays_in_range_and_all_but_one_do_something(operation: str):
    found = np.asarray(changed(operation, IMAGE, 0.8))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.abs(found - np.asarray(IMAGE)).max() > 0.01) == (operation != "identity")


def test_translations_and_shears_move_pixels_where_they_should():
    image = jnp.asarray(RANDOM.uniform(size=(20, 20, 1)), jnp.float32)
    step = 4 / (0.45 * 20)
    right = changed("translate_x", image, step)
    np.testing.assert_allclose(right[:, :16], image[:, 4:], atol=1e-4)
    down = changed("translate_y", image, step)
    np.testing.assert_allclose(down[:16], image[4:], atol=1e-4)
    np.testing.assert_allclose(right[:, 16:], 0.5, atol=1e-4)


def test_equalize_makes_the_levels_of_a_channel_equally_frequent():
    skewed = jnp.asarray(RANDOM.uniform(size=(20, 20, 1)) ** 4, jnp.float32)
    found = np.asarray(changed("equalize", skewed, 0.0))
    assert np.quantile(found, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.08)
    flat = jnp.full((20, 20, 1), 0.2)
    np.testing.assert_allclose(changed("equalize", flat, 0.0), 0.2, atol=1e-6)


def test_autocontrast_stretches_each_channel_to_the_whole_range():
    found = np.asarray(changed("autocontrast", 0.2 + 0.5 * IMAGE, 0.0))
    np.testing.assert_allclose(found.min((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(found.max((0, 1)), 1, atol=1e-6)
    np.testing.assert_allclose(changed("autocontrast", jnp.full((20, 20, 1), 0.4), 0.0), 0.4)


def test_a_transform_too_large_for_the_image_is_refused():
    for name in ("crop", "cutout"):
        options: dict[str, Any] = {name: 6}
        with pytest.raises(data.DataError, match=f"data.{name} is 6, and images are 6×5: give 5"):
            data.image_transforms(shape=(6, 5, 3), **options)


def test_a_transform_keeps_the_weights_of_the_batch():
    inner = data.evaluation({"x": IMAGES, "y": LABELS}, 16)
    batch = Transformed(inner, data.scaled(), random=False)(2)
    np.testing.assert_array_equal(batch["weight"], inner(2)["weight"])
