from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import losses, models, nn
from functorch_kit.train import variational

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
SLOPE, SCALE = 1.5, 0.7
LINEAR = {"decoder": {"kernel": jnp.array([[SLOPE]]), "bias": jnp.zeros(1)}}
POSTERIOR_VARIANCE = 1 / (1 + SLOPE**2 / SCALE**2)
GAUSSIAN = functools.partial(losses.gaussian_nll, scale=SCALE)


def _posterior(shift: float) -> nn.Model:
    """The exact posterior of z where x is SLOPE z plus noise, its mean shifted."""

    def describe(x):
        mean = POSTERIOR_VARIANCE * SLOPE / SCALE**2 * x + shift
        return jnp.concatenate([mean, jnp.full_like(x, np.log(POSTERIOR_VARIANCE))], -1)

    return nn.lambda_(describe)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_bound_is_the_evidence_less_the_divergence_from_the_posterior(shift):
    """Of a linear Gaussian model, whose evidence is N(0, SLOPE² + SCALE²)."""
    objective = variational(_posterior(shift), nn.dense(1), likelihood=GAUSSIAN)
    x = jnp.full((20000, 1), 0.8)
    run = jax.jit(lambda x: objective(LINEAR, (), {"x": x}, key=KEY, train=True))
    outcome = run(x)
    variance = SLOPE**2 + SCALE**2
    evidence = -(0.8**2) / (2 * variance) - np.log(2 * np.pi * variance) / 2
    divergence = shift**2 / (2 * POSTERIOR_VARIANCE)
    # A draw's deviation is about 0.8 nats, the mean of 20,000 has a hundredth of it.
    assert float(outcome.loss_sum / outcome.weight) == pytest.approx(
        divergence - evidence, abs=0.03
    )


def _small(dtype: type = np.float64):
    random = np.random.default_rng(1)
    encoder, decoder = nn.dense(4), nn.dense(3)
    model = models.vae(encoder, decoder)
    params = jax.eval_shape(lambda: model.init(KEY, jax.ShapeDtypeStruct((5, 3), dtype))[0])
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), dtype), params)
    return encoder, decoder, params, {"x": jnp.asarray(random.uniform(size=(5, 3)), dtype)}


def test_the_gradient_goes_through_the_draw(x64):
    encoder, decoder, params, batch = _small()
    random = np.random.default_rng(2)

    @jax.jit
    def loss(params):
        return variational(encoder, decoder)(params, (), batch, key=KEY, train=True).loss_sum

    slopes = jax.jit(jax.grad(loss))(params)
    for _ in range(3):
        way = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), params)
        ahead, behind = (
            loss(jax.tree.map(lambda p, d, s=s: p + s * 1e-6 * d, params, way)) for s in (1, -1)
        )
        got = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, way)))
        np.testing.assert_allclose(got, (ahead - behind) / 2e-6, rtol=1e-6)


def test_the_terms_are_those_written_out(x64):
    """With a decoder that does not look at the code nothing depends on the draw."""
    encoder, _, params, batch = _small()
    blind = {**params, "decoder": {"kernel": jnp.zeros((2, 3)), "bias": jnp.array([0.3, 0, -2])}}
    weight = jnp.array([1.0, 0.0, 2.0, 1.0, 0.5])

    @jax.jit
    def run(beta):
        objective = variational(encoder, nn.dense(3), beta=beta)
        return objective(blind, (), {**batch, "weight": weight}, key=KEY, train=True)

    x, w = np.asarray(batch["x"]), np.asarray(weight)
    described = x @ np.asarray(params["encoder"]["kernel"]) + np.asarray(params["encoder"]["bias"])
    mean, log_variance = described[:, :2], described[:, 2:]
    kl = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1) / 2
    p = 1 / (1 + np.exp(-np.array([0.3, 0, -2])))
    nll = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1)
    for beta in (1.0, 4.0):
        outcome = run(jnp.float64(beta))
        np.testing.assert_allclose(outcome.metrics["kl"].total, w @ kl, rtol=1e-12)
        np.testing.assert_allclose(outcome.metrics["reconstruction"].total, w @ nll, rtol=1e-12)
        np.testing.assert_allclose(outcome.loss_sum, w @ nll + beta * (w @ kl), rtol=1e-12)
        assert float(outcome.weight) == 4.5


def test_each_step_draws_anew_and_an_evaluation_does_not_depend_on_its_batches():
    encoder, decoder, params, batch = _small(np.float32)
    objective = jax.jit(variational(encoder, decoder), static_argnames="train")
    one, other = (
        objective(params, (), batch, key=jax.random.key(s), train=True).loss_sum for s in (0, 1)
    )
    assert float(one) != float(other)
    whole = objective(params, (), batch, key=None, train=False).loss_sum
    order = np.array([3, 0, 4, 2, 1])
    moved = {"x": batch["x"][order]}
    np.testing.assert_allclose(
        whole, objective(params, (), moved, key=None, train=False).loss_sum, rtol=1e-5
    )


def test_the_parts_keep_their_state():
    encoder = nn.serial(norm=nn.batch_norm(), out=nn.dense(4))
    decoder = nn.serial(norm=nn.batch_norm(), out=nn.dense(3))
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(5, 3)), jnp.float32)
    params, state = jax.jit(models.vae(encoder, decoder).init)(KEY, x)
    objective = jax.jit(variational(encoder, decoder), static_argnames="train")
    outcome = objective(params, state, {"x": x}, key=KEY, train=True)
    assert jax.tree.structure(outcome.model_state) == jax.tree.structure(state)
    for part in ("encoder", "decoder"):
        assert (outcome.model_state[part]["norm"]["mean"] != state[part]["norm"]["mean"]).all()


def test_handwritten_digits_in_eight_numbers(standard_promotion):
    """The bound is below 25 nats a digit; pixels by themselves, with their means, take 27.1."""
    digits = fk.data.digits()
    encoder = nn.serial(flat=nn.flatten(), hidden=nn.dense(128), act=nn.relu, out=nn.dense(16))
    decoder = nn.serial(
        hidden=nn.dense(128),
        act=nn.relu,
        out=nn.dense(64),
        image=nn.lambda_(lambda x: x.reshape(-1, 8, 8, 1)),
    )
    model = models.vae(encoder, decoder)
    result = fk.fit(
        model,
        variational(encoder, decoder),
        optimizer=optax.adam(2e-3),
        data=digits,
        steps=600,
        quiet=True,
    )
    x = digits.test.arrays["x"]
    mean = np.clip(digits.train.arrays["x"].mean(0), 1e-3, 1 - 1e-3)
    apart = -(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum((1, 2, 3)).mean()
    assert apart > 27
    assert result.test["loss"] < 25
    assert result.test["kl"] > 1  # the code is used
