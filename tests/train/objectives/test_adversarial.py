from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import models, nn, train
from functorch_kit.train import adversarial

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)
PARTS = ("generator", "discriminator")


def _by_part(optimizers) -> optax.GradientTransformation:
    def label(params):
        return {part: jax.tree.map(lambda _, part=part: part, params[part]) for part in PARTS}

    return optax.partition(optimizers, label)


def _numbers():
    """A line that makes numbers from numbers, a line that judges them, and real numbers."""
    params = {
        "generator": {"kernel": jnp.array([[1.7]]), "bias": jnp.array([0.4])},
        "discriminator": {"kernel": jnp.array([[-0.8]]), "bias": jnp.array([0.3])},
    }
    return params, jnp.asarray(RANDOM.normal(size=(6, 1)))


def test_each_part_gets_the_gradient_of_its_own_loss(x64):
    params, x = _numbers()
    seen = []

    def line(params, model_state, z, *, key=None, train=False):
        seen.append(z)
        return nn.dense(1).apply(params, (), z)

    generator = nn.Model(nn.dense(1).init, line)
    weight = jnp.array([1.0, 2.0, 1.0, 0.0, 1.0, 0.5])
    objective = adversarial(generator, nn.dense(1), latent=1)
    batch = {"x": x, "weight": weight}

    def loss(params):
        outcome = objective(params, (), batch, key=KEY, train=True)
        return outcome.loss_sum, outcome

    objective(params, (), batch, key=KEY, train=True)  # eager, so that the draws can be seen
    (_, outcome), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    z, x, w = np.asarray(seen[0])[:, 0], np.asarray(x)[:, 0], np.asarray(weight)
    made = 1.7 * z + 0.4

    def probability(x):
        return 1 / (1 + np.exp(-(-0.8 * x + 0.3)))

    judging = -w @ (np.log(probability(x)) + np.log(1 - probability(made)))
    making = -w @ np.log(probability(made))
    means = outcome.metrics
    np.testing.assert_allclose(means["discriminator_loss"].total, judging, rtol=1e-12)
    np.testing.assert_allclose(means["generator_loss"].total, making, rtol=1e-12)
    np.testing.assert_allclose(outcome.loss_sum, judging + making, rtol=1e-12)
    assert float(outcome.weight) == 5.5
    np.testing.assert_allclose(means["real_accuracy"].total, w @ (probability(x) > 0.5))
    np.testing.assert_allclose(means["made_accuracy"].total, w @ (probability(made) < 0.5))

    # The judge: of its own loss, made examples given. The generator: of its own, the judge given.
    of_real, of_made = w * (probability(x) - 1), w * probability(made)
    np.testing.assert_allclose(
        slope["discriminator"]["kernel"][0, 0], of_real @ x + of_made @ made, rtol=1e-12
    )
    np.testing.assert_allclose(slope["discriminator"]["bias"][0], (of_real + of_made).sum())
    of_making = w * (probability(made) - 1) * -0.8
    np.testing.assert_allclose(slope["generator"]["kernel"][0, 0], of_making @ z, rtol=1e-12)
    np.testing.assert_allclose(slope["generator"]["bias"][0], of_making.sum(), rtol=1e-12)


@pytest.mark.parametrize("still", PARTS)
def test_a_part_may_have_an_optimizer_of_its_own(still, standard_promotion):
    rates = {part: optax.sgd(0.0 if part == still else 0.1) for part in PARTS}
    optimizer = _by_part(rates)
    model = models.gan(nn.dense(2), nn.dense(1), latent=3)
    x = jnp.asarray(RANDOM.normal(size=(6, 2)), jnp.float32)
    state = train.init_state(model, optimizer, x)
    objective = adversarial(nn.dense(2), nn.dense(1), latent=3)
    after, _ = jax.jit(train.make_train_step(objective, optimizer))({}, state, {"x": x})
    for part in PARTS:
        moved = (after.params[part]["kernel"] != state.params[part]["kernel"]).any()
        assert moved == (part != still)


def test_both_parts_keep_their_state_and_dropout_has_a_key():
    generator = nn.serial(norm=nn.batch_norm(), out=nn.dense(2))
    judge = nn.serial(norm=nn.batch_norm(), drop=nn.dropout(0.5), out=nn.dense(1))
    x = jnp.asarray(RANDOM.normal(size=(6, 2)), jnp.float32)
    model = models.gan(generator, judge, latent=3)
    params, state = model.init(KEY, x)
    objective = jax.jit(adversarial(generator, judge, latent=3), static_argnames="train")
    outcome = objective(params, state, {"x": x}, key=KEY, train=True)
    assert jax.tree.structure(outcome.model_state) == jax.tree.structure(state)
    for part in PARTS:
        assert (outcome.model_state[part]["norm"]["mean"] != 0).all()
    made, after = model.apply(params, state, jnp.ones((4, 3)), train=True)
    assert made.shape == (4, 2)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert (after["generator"]["norm"]["mean"] != 0).all()


def test_each_step_makes_other_examples_and_an_evaluation_does_not_depend_on_its_batches():
    params, x = _numbers()
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
    objective = jax.jit(adversarial(nn.dense(1), nn.dense(1), latent=1), static_argnames="train")
    one, other = (
        objective(params, (), {"x": x}, key=jax.random.key(s), train=True).loss_sum for s in (0, 1)
    )
    assert float(one) != float(other)
    whole, moved = (
        objective(params, (), {"x": x[order]}, key=None, train=False).loss_sum
        for order in (np.arange(6), np.array([3, 5, 0, 1, 2, 4]))
    )
    np.testing.assert_allclose(whole, moved, rtol=1e-5)


@pytest.mark.parametrize(
    ("generator", "judge", "message"),
    [
        (nn.dense(3), nn.dense(1), r"made examples are \(6, 3\), real ones \(6, 2\)"),
        (nn.dense(2), nn.dense(2), r"of 6 examples the log-odds are \(6, 2\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(generator, judge, message):
    x = jnp.ones((6, 2))
    params, _ = models.gan(generator, nn.identity, latent=1).init(KEY, x)
    if "made" not in message:
        params |= {"discriminator": judge.init(KEY, x)[0]}
    with pytest.raises(ValueError, match=message):
        adversarial(generator, judge, latent=1)(params, (), {"x": x}, key=KEY, train=True)


def _frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Between normal distributions of two samples' means and covariances."""
    covariances = np.cov(one.T), np.cov(other.T)
    both = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    apart = ((one.mean(0) - other.mean(0)) ** 2).sum()
    return float(apart + np.trace(covariances[0] + covariances[1]) - 2 * both)


def test_handwritten_digits_are_made_by_a_generator_that_never_sees_one(standard_promotion):
    """Their Fréchet distance is below 2.5, untrained 11; two halves of the real ones 0.1."""
    digits = fk.data.digits()
    generator = nn.serial(
        hidden=nn.dense(128),
        act=nn.relu,
        deeper=nn.dense(128),
        deeper_act=nn.relu,
        out=nn.dense(64),
        grey=nn.sigmoid,
        image=nn.lambda_(lambda x: x.reshape(-1, 8, 8, 1)),
    )
    judge = nn.serial(
        flat=nn.flatten(), hidden=nn.dense(128), act=nn.leaky_relu(0.2), out=nn.dense(1)
    )
    model = models.gan(generator, judge, latent=16)
    # The judge learns ten times as fast: it has to know what it speaks of.
    rates = {"generator": optax.adam(1e-4, b1=0.5), "discriminator": optax.adam(1e-3, b1=0.5)}
    optimizer = _by_part(rates)
    result = fk.fit(
        model,
        adversarial(generator, judge, latent=16),
        optimizer=optimizer,
        data=digits._replace(validation=None, test=None),
        steps=1000,
        quiet=True,
    )
    generate = jax.jit(lambda params, z: model.apply(params, (), z)[0].reshape(-1, 64))
    z = jax.random.normal(jax.random.key(5), (1000, 16))
    untrained, _ = model.init(KEY, digits.train.spec["x"])
    real = digits.train.arrays["x"].reshape(-1, 64)
    assert _frechet(real[::2], real[1::2]) < 0.1
    assert _frechet(np.asarray(generate(untrained, z)), real) > 10
    assert _frechet(np.asarray(generate(result.params, z)), real) < 2.5
