from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn


def _params(channels: int, scale: float = 1.0, bias: float = 0.0) -> dict:
    return {"scale": np.full(channels, scale), "bias": np.full(channels, bias)}


def test_running_statistics_are_those_worked_by_hand(maybe_jit, x64):
    norm = nn.batch_norm(momentum=0.75)
    train = maybe_jit(lambda state, x: norm.apply(_params(1), state, x, train=True)[1])
    state = {"mean": np.zeros(1), "var": np.ones(1)}
    # 1, 2, 3, 6: mean 3, squared distances 4 + 1 + 0 + 9 = 14, unbiased variance 14 / 3.
    state = train(state, jnp.array([[[1.0], [2.0]], [[3.0], [6.0]]]))
    np.testing.assert_allclose(state["mean"], [0.75], rtol=1e-15)
    np.testing.assert_allclose(state["var"], [0.75 + 0.25 * 14 / 3], rtol=1e-15)
    # -1, 1, -1, 1: mean 0, unbiased variance 4 / 3.
    state = train(state, jnp.array([[[-1.0], [1.0]], [[-1.0], [1.0]]]))
    np.testing.assert_allclose(state["mean"], [0.5625], rtol=1e-15)
    np.testing.assert_allclose(state["var"], [0.75 * (0.75 + 3.5 / 3) + 1 / 3], rtol=1e-15)


def test_a_training_batch_is_normalised_by_its_own_biased_moments(maybe_jit, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(7, 3, (50, 4, 3)))
    norm = nn.batch_norm(epsilon=0.0)
    state = {"mean": np.full(3, 100.0), "var": np.full(3, 100.0)}
    y, _ = maybe_jit(lambda x: norm.apply(_params(3, 2.0, 5.0), state, x, train=True))(x)
    np.testing.assert_allclose(np.mean(y, (0, 1)), 5.0, rtol=1e-12)
    np.testing.assert_allclose(np.std(y, (0, 1)), 2.0, rtol=1e-12)


def test_evaluation_uses_the_running_statistics_and_leaves_them(maybe_jit, x64):
    state = {"mean": np.array([3.0]), "var": np.array([4.0])}
    norm = nn.batch_norm(epsilon=0.0)
    y, after = maybe_jit(lambda x: norm.apply(_params(1, 3.0, 1.0), state, x))(jnp.array([[7.0]]))
    np.testing.assert_allclose(y, [[(7 - 3) / 2 * 3 + 1]], rtol=1e-15)
    assert float(after["mean"][0]) == 3.0
    assert float(after["var"][0]) == 4.0


def test_a_batch_of_one_number_has_variance_zero_not_nan(maybe_jit):
    norm = nn.batch_norm()
    params, state = norm.init(jax.random.key(0), jnp.zeros((1, 2)))
    y, state = maybe_jit(lambda x: norm.apply(params, state, x, train=True))(jnp.ones((1, 2)))
    assert np.isfinite(y).all()
    np.testing.assert_allclose(state["var"], 0.9, rtol=1e-6)


def test_gradients_do_not_flow_through_the_running_statistics_in_evaluation(x64):
    norm = nn.batch_norm(epsilon=0.0)
    state = {"mean": np.array([3.0]), "var": np.array([4.0])}
    gradient = jax.grad(lambda x: norm.apply(_params(1), state, x)[0].sum())(jnp.array([[1.0]]))
    np.testing.assert_allclose(gradient, [[0.5]], rtol=1e-15)


def test_layer_norm_gives_every_position_mean_zero_and_variance_one(maybe_jit, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(-4, 9, (3, 5, 6)))
    y, _ = maybe_jit(nn.layer_norm(epsilon=0.0).apply)(_params(6), (), x)
    np.testing.assert_allclose(np.mean(y, -1), 0, atol=1e-13)
    np.testing.assert_allclose(np.var(y, -1), 1, rtol=1e-12)


def test_group_norm_gives_every_group_of_every_example_mean_zero_and_variance_one(maybe_jit, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(-4, 9, (3, 5, 2, 6)))
    y, _ = maybe_jit(nn.group_norm(3, epsilon=0.0).apply)(_params(6), (), x)
    grouped = np.asarray(y).reshape(3, 5, 2, 3, 2)
    np.testing.assert_allclose(grouped.mean((1, 2, 4)), 0, atol=1e-13)
    np.testing.assert_allclose(grouped.var((1, 2, 4)), 1, rtol=1e-12)


def test_group_norm_of_one_group_without_space_is_layer_norm(x64):
    x = np.random.default_rng(0).normal(1, 2, (3, 6))
    both = jax.jit(lambda x: [n.apply(_params(6, 1.5, 0.5), (), x)[0] for n in norms])
    norms = (nn.group_norm(1), nn.layer_norm())
    one, other = both(x)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.layer_norm(epsilon=0.25), nn.group_norm(1, epsilon=0.25)])
def test_epsilon_is_added_to_the_variance(norm, maybe_jit, x64):
    # Mean 2, variance 1: 1 / sqrt(1 + 0.25).
    y, _ = maybe_jit(norm.apply)(_params(2), (), jnp.array([[1.0, 3.0]]))
    np.testing.assert_allclose(y, [[-(1.25**-0.5), 1.25**-0.5]], rtol=1e-14)


def test_a_large_mean_does_not_drown_the_variance():
    """Float32 carries 24 bits: at mean 1000 and deviation 1, three digits must be left."""
    x = np.random.default_rng(0).normal(1000, 1, (400, 2)).astype(np.float32)
    exact = (x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64)
    norm = nn.batch_norm(epsilon=0.0)
    params, state = norm.init(jax.random.key(0), x)
    y = jax.jit(lambda x: norm.apply(params, state, x, train=True)[0])(x)
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-3)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="4 groups do not divide 6 channels"):
        nn.group_norm(4).init(jax.random.key(0), jnp.zeros((1, 6)))
