from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import losses, nn
from functorch_kit.train import contrastive

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)
X = jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32)


def _noisy(key, x):
    return x + 0.3 * jax.random.normal(key, x.shape, x.dtype)


def _spy(seen: list) -> nn.Model:
    def apply(params, model_state, x, *, key=None, train=False):
        seen.append(x)
        return x, model_state

    return nn.Model(lambda key, x: ((), ()), apply)


def test_two_views_of_each_example_pass_through_the_model_together():
    seen = []
    objective = contrastive(_spy(seen), augment=_noisy, temperature=0.5)
    weight = jnp.array([1.0, 1.0, 2.0, 0.0, 1.0, 1.0])
    outcome = objective((), (), {"x": X, "weight": weight}, key=KEY, train=True)
    (views,) = seen
    one, other = views[:6], views[6:]
    assert (one != other).all()
    assert (one != X).all()
    loss, found = losses.nt_xent(one, other, temperature=0.5, present=weight)
    np.testing.assert_allclose(outcome.loss_sum, jnp.sum(jnp.where(weight > 0, loss * weight, 0)))
    assert float(outcome.weight) == 6
    np.testing.assert_allclose(outcome.metrics["found"].total, jnp.sum(found * weight))


def test_padding_is_no_negative():
    objective = contrastive(nn.identity, augment=_noisy)
    padded = {
        "x": jnp.concatenate([X, X[:2]]),
        "weight": jnp.concatenate([jnp.ones(6), jnp.zeros(2)]),
    }
    run = jax.jit(lambda batch: objective({}, (), batch, key=None, train=False))
    whole, other = run({"x": X}), run(padded)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_in_evaluation_the_order_of_examples_does_not_matter():
    objective = contrastive(nn.identity, augment=_noisy)
    order = np.array([3, 1, 5, 0, 4, 2])
    run = jax.jit(lambda x: objective({}, (), {"x": x}, key=None, train=False).loss_sum)
    np.testing.assert_allclose(run(X), run(X[order]), rtol=1e-5)


def test_micro_batches_have_fewer_negatives_so_their_sum_is_another_loss():
    """What the docstring says of accumulation: here it can only become easier."""
    objective = contrastive(nn.identity, augment=_noisy)
    run = jax.jit(lambda x: objective({}, (), {"x": x}, key=None, train=False).loss_sum)
    whole, parts = run(X), [run(X[:3]), run(X[3:])]
    assert float(sum(parts)) < 0.9 * float(whole)


def test_examples_may_be_dicts_and_the_temperature_traced():
    @jax.jit
    def loss(temperature):
        objective = contrastive(
            nn.lambda_(lambda x: x["a"]),
            augment=lambda key, x: {"a": _noisy(key, x["a"])},
            temperature=temperature,
        )
        return objective({}, (), {"x": {"a": X}}, key=None, train=False).loss_sum

    # At a high temperature every view looks alike: one of eleven.
    np.testing.assert_allclose(loss(jnp.float32(1e6)), 6 * np.log(11), rtol=1e-4)
    assert loss(jnp.float32(0.1)) < 6 * np.log(11)


def test_outputs_that_are_not_one_vector_for_each_view_are_refused():
    objective = contrastive(nn.lambda_(lambda x: x[:, :, None]), augment=_noisy)
    with pytest.raises(ValueError, match=r"of 12 views the outputs are \(12, 3, 1\)"):
        objective({}, (), {"x": X}, key=KEY, train=True)


def test_shifted_digits_are_recognised_without_a_label_in_training(standard_promotion):
    """The nearest neighbour of a shifted digit is of its class for 0.85 of them; untrained 0.5."""
    digits = fk.data.digits()

    def shifted(key, image):
        down, right = jax.random.randint(key, (2,), -1, 2)
        return jnp.roll(image, (down, right), (0, 1))

    model = nn.serial(flat=nn.flatten(), hidden=nn.dense(256), act=nn.relu, out=nn.dense(64))
    objective = contrastive(model, augment=shifted, temperature=0.2)
    result = fk.fit(
        model,
        objective,
        optimizer=optax.adam(3e-3),
        data=digits._replace(validation=None),
        steps=400,
        quiet=True,
    )
    train, test = digits.train.arrays, digits.test.arrays
    keys = jax.random.split(jax.random.key(3), len(test["x"]))
    moved = jax.jit(jax.vmap(shifted))(keys, test["x"])
    vectors = jax.jit(lambda params, x: model.apply(params, (), x)[0])

    def recognised(params) -> float:
        known, asked = (np.array(vectors(params, x)) for x in (train["x"], moved))
        known /= np.linalg.norm(known, axis=1, keepdims=True)
        return float(np.mean(train["y"][(asked @ known.T).argmax(1)] == test["y"]))

    untrained, _ = model.init(jax.random.key(0), digits.train.spec["x"])
    assert recognised(untrained) < 0.6
    assert recognised(result.params) > 0.85
    assert result.test["found"] > 0.5  # among the 717 other views of the test part
