from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import metrics, nn
from functorch_kit.train import multilabel

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
ODDS, TRUE = RANDOM.normal(size=(5, 3)), RANDOM.integers(0, 2, (5, 3))
BATCH = {"x": jnp.asarray(ODDS, jnp.float32), "y": jnp.asarray(TRUE)}


def _losses():
    p = 1 / (1 + np.exp(-ODDS))
    return -np.log(np.where(TRUE, p, 1 - p))


def test_the_loss_is_in_nats_for_each_label(maybe_jit, x64):
    batch = {"x": jnp.asarray(ODDS), "y": jnp.asarray(TRUE)}
    run = maybe_jit(lambda b: multilabel(nn.identity)({}, (), b, key=None, train=True))
    outcome = run(batch)
    np.testing.assert_allclose(outcome.loss_sum, _losses().sum(), rtol=1e-13)
    assert float(outcome.weight) == 15


def test_weights_of_labels_examples_and_single_answers_multiply():
    by_label, by_example = np.array([1.0, 0.0, 2.5]), np.array([1.0, 2.0, 0.0, 1.0, 1.0])
    objective = multilabel(nn.identity, label_weight=jnp.asarray(by_label, jnp.float32))
    both = by_example[:, None] * by_label
    for weight in (by_example, np.repeat(by_example[:, None], 3, 1)):
        batch = {**BATCH, "weight": jnp.asarray(weight, jnp.float32)}
        outcome = objective({}, (), batch, key=None, train=True)
        np.testing.assert_allclose(outcome.loss_sum, (both * _losses()).sum(), rtol=1e-6)
        assert float(outcome.weight) == both.sum()
        # What is measured is measured evenly over labels.
        assert float(outcome.metrics["accuracy"].weight) == 3 * by_example.sum()


def test_a_label_weight_may_be_traced():
    @jax.jit
    def loss(label_weight):
        objective = multilabel(nn.identity, label_weight=label_weight)
        return objective({}, (), BATCH, key=None, train=True).loss_sum

    np.testing.assert_allclose(loss(jnp.array([0.0, 1.0, 0.0])), _losses()[:, 1].sum(), rtol=1e-6)


def test_an_unknown_label_has_no_gradient_and_one_that_counts_makes_the_loss_nan():
    def loss(x, weight):
        batch = {"x": x, "y": BATCH["y"].at[0, 0].set(-1), "weight": weight}
        return multilabel(nn.identity)({}, (), batch, key=None, train=True).loss_sum

    known = jnp.ones((5, 3)).at[0, 0].set(0.0)
    gradient = jax.grad(loss)(BATCH["x"], known)
    assert np.isfinite(gradient).all()
    assert gradient[0, 0] == 0
    assert np.isnan(loss(BATCH["x"], jnp.ones((5, 3))))


def test_two_parts_of_a_batch_add_up():
    def run(part):
        batch = {name: leaf[part] for name, leaf in BATCH.items()}
        return multilabel(nn.identity)({}, (), batch, key=None, train=False)

    whole = run(slice(None))
    added = jax.tree.map(jnp.add, run(slice(0, 4)), run(slice(4, 5)))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_metrics_can_be_chosen():
    objective = multilabel(
        nn.identity, train_metrics={}, eval_metrics={"by": metrics.accuracy_by_label}
    )
    assert list(objective({}, (), BATCH, key=None, train=True).metrics) == []
    assert list(objective({}, (), BATCH, key=None, train=False).metrics) == ["by"]


def test_log_odds_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"log-odds are \(5, 3\), targets \(5, 1\)"):
        multilabel(nn.identity)({}, (), {**BATCH, "y": BATCH["y"][:, :1]}, key=None, train=True)


def test_four_properties_of_handwritten_digits_are_learnt(standard_promotion):
    """Odd, five or more, prime, with a hole: over 0.93 of the answers are right, and F1 0.92."""
    digits, ten = fk.data.digits(), np.arange(10)
    properties = np.stack(
        [ten % 2 == 1, ten >= 5, np.isin(ten, [2, 3, 5, 7]), np.isin(ten, [0, 6, 8, 9])], 1
    )
    parts = [
        {"x": part.arrays["x"], "y": properties[part.arrays["y"]].astype(np.int32)}
        for part in (digits.train, digits.test)
    ]
    data = fk.data.Data(fk.data.training(parts[0], 64, 0), test=fk.data.evaluation(parts[1]))
    model = fk.models.mlp(fk.models.MLPConfig(hidden=(64,), outputs=4))
    result = fk.fit(
        model, multilabel(model), optimizer=optax.adam(3e-3), data=data, steps=300, quiet=True
    )
    assert result.test["accuracy"] > 0.93
    assert result.test["f1"] > 0.92
    assert result.test["accuracy_by_label"].shape == (4,)
    np.testing.assert_allclose(result.test["accuracy_by_label"].mean(), result.test["accuracy"])
