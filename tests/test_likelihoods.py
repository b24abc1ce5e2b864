"""Losses of single labels, of distributions and of pairs, against closed forms in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import losses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (6, 5))
TARGETS = RANDOM.integers(0, 2, (6, 5))


def test_sigmoid_cross_entropy_is_minus_the_log_probability_of_what_was(maybe_jit, x64):
    p = 1 / (1 + np.exp(-LOGITS))
    loss = maybe_jit(losses.sigmoid_cross_entropy)(jnp.asarray(LOGITS), jnp.asarray(TARGETS))
    np.testing.assert_allclose(loss, -np.log(np.where(TARGETS, p, 1 - p)), rtol=1e-12)


def test_its_gradient_is_the_probability_minus_the_target(maybe_jit, x64):
    soft = jnp.asarray(RANDOM.uniform(size=(6, 5)))

    def total(z):
        return losses.sigmoid_cross_entropy(z, soft).sum()

    gradient = maybe_jit(jax.grad(total))(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-LOGITS)) - soft, rtol=0, atol=1e-14)


def test_two_classes_are_one_label(x64):
    z = jnp.asarray(LOGITS)
    softmax = losses.softmax_cross_entropy(
        jnp.stack([jnp.zeros_like(z), z], -1), jnp.asarray(TARGETS)
    )
    sigmoid = losses.sigmoid_cross_entropy(z, jnp.asarray(TARGETS))
    np.testing.assert_allclose(sigmoid, softmax, rtol=1e-12)


def test_extreme_log_odds_have_finite_losses_and_gradients(maybe_jit):
    logits, targets = jnp.array([1e4, -1e4, 1e4, -1e4]), jnp.array([1, 1, 0, 0])
    loss = maybe_jit(losses.sigmoid_cross_entropy)(logits, targets)
    np.testing.assert_allclose(loss, [0, 1e4, 1e4, 0], atol=1e-6)
    gradient = jax.grad(lambda z: losses.sigmoid_cross_entropy(z, targets).sum())(logits)
    np.testing.assert_allclose(gradient, [0, -1, 1, 0], atol=1e-6)


@pytest.mark.parametrize("target", [-1.0, 1.001, 2.0, np.nan])
def test_a_target_that_is_no_probability_has_no_loss(target, maybe_jit):
    loss = maybe_jit(losses.sigmoid_cross_entropy)(jnp.zeros(3), jnp.array([0.0, target, 1.0]))
    assert np.isnan(loss).tolist() == [False, True, False]


def test_booleans_and_bytes_are_targets(maybe_jit):
    loss = maybe_jit(losses.sigmoid_cross_entropy)
    z = jnp.asarray(LOGITS, jnp.float32)
    expected = loss(z, jnp.asarray(TARGETS, jnp.float32))
    for dtype in (bool, jnp.uint8):
        np.testing.assert_array_equal(loss(z, jnp.asarray(TARGETS, dtype)), expected)


def test_the_gaussian_density_integrates_to_one(x64):
    grid = np.linspace(-30, 30, 20001)
    nll = losses.gaussian_nll(
        jnp.full((20001, 1), 1.5), jnp.asarray(grid)[:, None], scale=jnp.float64(2.5)
    )
    assert np.trapezoid(np.exp(-np.asarray(nll)), grid) == pytest.approx(1, abs=1e-9)
    assert grid[np.argmin(nll)] == pytest.approx(1.5)


def test_features_are_independent(x64):
    mean, x = (jnp.asarray(RANDOM.normal(size=(4, 2, 3))) for _ in range(2))
    for nll in (losses.gaussian_nll, lambda m, x: losses.bernoulli_nll(m, jax.nn.sigmoid(x))):
        each = [nll(mean[:, i : i + 1, j], x[:, i : i + 1, j]) for i in range(2) for j in range(3)]
        np.testing.assert_allclose(nll(mean, x), sum(each), rtol=1e-12)


def test_the_divergence_is_the_integral_that_defines_it(x64):
    mean, log_variance = np.array([[0.0], [2.0], [-1.0]]), np.array([[0.0], [-1.0], [1.2]])
    grid = np.linspace(-40, 40, 80001)
    expected = []
    for m, v in zip(mean[:, 0], np.exp(log_variance[:, 0]), strict=True):
        log_q = -((grid - m) ** 2) / (2 * v) - np.log(2 * np.pi * v) / 2
        log_p = -(grid**2) / 2 - np.log(2 * np.pi) / 2
        expected.append(np.trapezoid(np.exp(log_q) * (log_q - log_p), grid))
    divergence = losses.gaussian_kl(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(divergence, expected, rtol=1e-9, atol=1e-9)


def test_a_small_divergence_keeps_its_digits():
    # v - 1 - log(v) is v's square over two when small; in float32 the plain difference is 0.
    divergence = losses.gaussian_kl(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
    assert float(divergence[0]) == pytest.approx(1e-6 / 4, rel=1e-3)


def _nt_xent(one, other, temperature):
    """Written out with loops."""
    views = np.concatenate([one, other])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    count, total = len(one), np.zeros(len(one))
    for i in range(2 * count):
        powers = np.exp(views @ views[i] / temperature)
        total[i % count] -= np.log(powers[(i + count) % (2 * count)] / (powers.sum() - powers[i]))
    return total / 2


def test_nt_xent_is_the_one_written_out(maybe_jit, x64):
    one, other = RANDOM.normal(size=(2, 7, 3))
    loss, _ = maybe_jit(losses.nt_xent)(
        jnp.asarray(one), jnp.asarray(other), temperature=jnp.float64(0.3)
    )
    np.testing.assert_allclose(loss, _nt_xent(one, other, 0.3), rtol=1e-12)


def test_lengths_of_vectors_do_not_matter(x64):
    one, other = (jnp.asarray(v) for v in RANDOM.normal(size=(2, 4, 3)))
    nt_xent = jax.jit(losses.nt_xent)
    loss, found = nt_xent(one, other)
    longer, found_longer = nt_xent(7 * one, other * jnp.array([1e-3, 1, 9, 5])[:, None])
    np.testing.assert_allclose(loss, longer, rtol=1e-10)
    np.testing.assert_array_equal(found, found_longer)


def test_an_example_that_is_not_there_is_no_ones_negative_even_if_it_is_no_number():
    one, other = (jnp.asarray(v, jnp.float32) for v in RANDOM.normal(size=(2, 5, 3)))
    present = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0])

    def total(one, other, present):
        loss, found = losses.nt_xent(one, other, present=present)
        return jnp.where(present > 0, loss, 0).sum(), found

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    garbage = jnp.where(present[:, None] > 0, one, jnp.nan)
    (loss, found), slope = run(garbage, other, present)
    kept = np.flatnonzero(present)
    (expected, others), short_slope = run(one[kept], other[kept], present[kept])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_array_equal(found[kept], others)
    np.testing.assert_allclose(slope[kept], short_slope, rtol=1e-4, atol=1e-6)
    assert not slope[np.array([1, 4])].any()


def test_a_vector_of_length_zero_has_a_finite_gradient():
    slope = jax.jit(jax.grad(lambda v: losses.nt_xent(v, jnp.ones((2, 3)))[0].sum()))(
        jnp.zeros((2, 3))
    )
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_a_loss_has_at_least_32_bits(dtype):
    """In float16 a sum of 300 squares of 30 overflows, in bfloat16 it is off by a thousandth."""
    with jax.enable_x64(dtype == "float64"):
        wide = jnp.float64 if dtype == "float64" else jnp.float32

        @jax.jit
        def measure(x, y):
            return {
                "squared": losses.squared_error(x, y),
                "absolute": losses.absolute_error(x, y),
                "softmax": losses.softmax_cross_entropy(x, jnp.zeros(2, jnp.int32)),
                "smoothed": losses.softmax_cross_entropy(x, jnp.zeros(2, jnp.int32), 0.1),
                "sigmoid": losses.bernoulli_nll(x, y),
                "gaussian": losses.gaussian_nll(x, y, 30.0),
                "kl": losses.gaussian_kl(x, y),
                "pairs": losses.nt_xent(x, x)[0],
            }

        values = measure(jnp.full((2, 300), 30, dtype), jnp.zeros((2, 300), dtype))
        assert {name: value.dtype for name, value in values.items()} == dict.fromkeys(values, wide)
    expected = {
        "squared": 300 * 900,
        "absolute": 9000,
        "softmax": np.log(300),
        "smoothed": np.log(300),
        "sigmoid": 9000,
        "gaussian": 300 * (0.5 + np.log(30) + np.log(2 * np.pi) / 2),
        "kl": 300 * 450,
        "pairs": np.log(3),  # four views, all alike
    }
    for name, value in values.items():
        np.testing.assert_allclose(value, np.full(2, expected[name]), rtol=1e-5, err_msg=name)
