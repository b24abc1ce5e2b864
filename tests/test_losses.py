from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import losses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_minus_the_expected_log_probability(smoothing, maybe_jit, x64):
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    expected = -(target * np.log(_softmax(LOGITS))).sum(-1)
    loss = maybe_jit(losses.softmax_cross_entropy, static_argnums=2)
    y = loss(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing)
    np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_gradient_is_the_softmax_minus_the_target(smoothing, maybe_jit, x64):
    def total(logits):
        return losses.softmax_cross_entropy(logits, jnp.asarray(LABELS), smoothing).sum()

    gradient = maybe_jit(jax.grad(total))(jnp.asarray(LOGITS))
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    np.testing.assert_allclose(gradient, _softmax(LOGITS) - target, rtol=0, atol=1e-14)


def test_smoothing_may_be_traced_and_compiles_once(x64):
    traces = []

    @jax.jit
    def loss(smoothing):
        traces.append(smoothing)
        return losses.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing)

    log_p = np.log(_softmax(LOGITS))
    for smoothing in (0.0, 0.5):
        own = log_p[np.arange(6), LABELS]
        expected = -(1 - smoothing) * own - smoothing * log_p.mean(-1)
        np.testing.assert_allclose(loss(jnp.float64(smoothing)), expected, rtol=1e-13)
    assert len(traces) == 1


@pytest.mark.parametrize("label", [-1, 5, -5, 2**31 - 1, -(2**31)])
def test_an_impossible_label_has_no_loss_and_never_a_neighbours(label, maybe_jit):
    logits = jnp.asarray(LOGITS[:3], jnp.float32)
    loss = maybe_jit(losses.softmax_cross_entropy)(logits, jnp.array([1, label, 2]))
    assert np.isnan(loss).tolist() == [False, True, False]


def test_an_impossible_label_of_64_bits_is_not_cut_to_a_possible_one(x64):
    loss = losses.softmax_cross_entropy(jnp.asarray(LOGITS[:1]), jnp.array([2**32], jnp.int64))
    assert np.isnan(loss).all()


@pytest.mark.parametrize(("dtype", "classes"), [("uint8", 256), ("uint8", 300), ("int8", 200)])
def test_labels_in_one_byte_serve_any_number_of_classes(dtype, classes, maybe_jit):
    """In uint8, 256 is 0 and 300 is 44: comparisons must be made in wider integers."""
    largest = np.iinfo(dtype).max
    logits = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    labels = np.array([0, 44, largest])
    narrow = maybe_jit(losses.softmax_cross_entropy)(
        jnp.asarray(logits), jnp.asarray(labels, dtype)
    )
    expected = -np.log(_softmax(logits.astype(np.float64)))[np.arange(3), labels]
    np.testing.assert_allclose(narrow, expected, rtol=1e-5)


def test_extreme_logits_have_finite_losses_and_gradients(maybe_jit):
    logits = jnp.array([[1e4, 0.0], [-1e4, 0.0], [1e4, 1e4]])
    labels = jnp.array([1, 0, 0])
    loss = maybe_jit(losses.softmax_cross_entropy)(logits, labels)
    np.testing.assert_allclose(loss, [1e4, 1e4, np.log(2)], rtol=1e-3)
    gradient = maybe_jit(jax.grad(lambda x: losses.softmax_cross_entropy(x, labels).sum()))(logits)
    np.testing.assert_allclose(gradient, [[1, -1], [-1, 1], [-0.5, 0.5]], atol=1e-6)


def test_a_class_that_is_ruled_out_does_not_disturb_the_others(maybe_jit):
    logits = jnp.array([[0.0, -jnp.inf, 0.0]])
    loss = maybe_jit(losses.softmax_cross_entropy)(logits, jnp.array([2]))
    np.testing.assert_allclose(loss, [np.log(2)], rtol=1e-6)


def test_labels_may_have_more_axes(maybe_jit):
    logits, labels = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), jnp.int32)
    loss = maybe_jit(losses.softmax_cross_entropy)(logits, labels)
    np.testing.assert_allclose(loss, np.full((2, 3), np.log(4)), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(losses.squared_error, [9 + 4, 0.25]), (losses.absolute_error, [3 + 2, 0.5])],
    ids=["squared", "absolute"],
)
def test_errors_are_summed_over_the_features_of_each_example(loss, expected, maybe_jit):
    predictions = jnp.array([[1.0, 2.0], [0.0, 0.5]])
    targets = jnp.array([[4.0, 0.0], [0.0, 0.0]])
    assert maybe_jit(loss)(predictions, targets).tolist() == expected
    deeper = maybe_jit(loss)(predictions[:, None, :, None], targets[:, None, :, None])
    assert deeper.tolist() == expected
