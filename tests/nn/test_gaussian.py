from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, nn

KEY = jax.random.key(0)


def test_draws_have_the_mean_and_the_deviation_that_are_asked_for(maybe_jit):
    described = jnp.tile(jnp.array([2.0, -1.0, jnp.log(0.25), jnp.log(9.0)]), (20000, 1))
    layer = nn.gaussian_sample()
    run = maybe_jit(lambda x, key: layer.apply({}, (), x, key=key, train=True)[0])
    draws = np.asarray(run(described, KEY))
    deviation = np.array([0.5, 3.0])
    np.testing.assert_array_less(np.abs(draws.mean(0) - [2, -1]), 5 * deviation / np.sqrt(20000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.03)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


def test_a_draw_has_a_gradient_in_mean_and_deviation(x64):
    described = jnp.array([0.3, 0.8])

    def draw(x):
        return nn.gaussian_sample().apply({}, (), x, key=KEY, train=True)[0][0]

    by_mean, by_log_variance = jax.grad(draw)(described)
    # z = mean + exp(l / 2) noise: by the mean 1, by l half of what the noise adds.
    np.testing.assert_allclose([by_mean, by_log_variance], [1, (draw(described) - 0.3) / 2])


def test_an_evaluation_takes_the_mean_and_training_needs_a_key():
    layer = nn.gaussian_sample()
    assert layer.apply({}, (), jnp.array([1.0, 2.0, 8.0, 9.0]))[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="gaussian_sample needs a key"):
        layer.apply({}, (), jnp.ones(2), train=True)


def test_an_odd_number_of_outputs_describes_nothing():
    with pytest.raises(ValueError, match="5 outputs are no means and as many log-variances"):
        nn.mean_and_log_variance(jnp.ones((2, 5)))


def test_a_variational_autoencoder_decodes_the_mean_by_itself():
    encoder, decoder = nn.dense(6), nn.dense(5)
    model, x = models.vae(encoder, decoder), jnp.ones((4, 5))
    params, state = model.init(KEY, x)
    assert sorted(params) == ["decoder", "encoder"]
    y, _ = model.apply(params, state, x)
    code, _ = nn.mean_and_log_variance(encoder.apply(params["encoder"], (), x)[0])
    np.testing.assert_allclose(y, decoder.apply(params["decoder"], (), code)[0], rtol=1e-6)
    drawn, _ = model.apply(params, state, x, key=KEY, train=True)
    assert (drawn != y).any()
