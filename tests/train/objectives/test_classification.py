from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import losses, metrics, nn
from functorch_kit.train import classification, regression

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(size=(7, 3)), jnp.float32)
CLASSES = {"x": LOGITS, "y": jnp.arange(7) % 3, "weight": jnp.arange(7.0)}
NUMBERS = {"x": LOGITS, "y": jnp.asarray(RANDOM.normal(size=(7, 3)), jnp.float32)}
TASKS = {
    "classification": (classification(nn.identity), CLASSES),
    "regression": (regression(nn.identity), NUMBERS),
}


def _cut(batch: dict, part: slice) -> dict:
    return {name: leaf[part] for name, leaf in batch.items()}


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(("objective", "batch"), TASKS.values(), ids=TASKS)
def test_a_ragged_batch_in_two_parts_adds_up(objective, batch, train, maybe_jit):
    """Means do not: the mean over 5 and over 2 examples is not the mean over 7."""
    run = maybe_jit(lambda batch: objective({}, (), batch, key=None, train=train))
    whole, parts = run(batch), [run(_cut(batch, part)) for part in (slice(0, 5), slice(5, 7))]
    added = jax.tree.map(jnp.add, *parts)
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert float(whole.weight) == (21 if "weight" in batch else 7)


@pytest.mark.parametrize(("objective", "batch"), TASKS.values(), ids=TASKS)
def test_padding_of_weight_zero_changes_nothing(objective, batch, maybe_jit):
    weight = batch.get("weight", jnp.ones(7))
    garbage = {"x": jnp.full((2, 3), jnp.nan), "y": batch["y"][:2] - 9, "weight": jnp.zeros(2)}
    batch = {**batch, "weight": weight}
    padded = {name: jnp.concatenate([batch[name], garbage[name]]) for name in batch}
    run = maybe_jit(lambda batch: objective({}, (), batch, key=None, train=False))
    for a, b in zip(jax.tree.leaves(run(padded)), jax.tree.leaves(run(batch)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_ignored_label_has_no_gradient(maybe_jit):
    def loss(x):
        batch = {"x": x, "y": jnp.array([0, -1]), "weight": jnp.array([1.0, 0.0])}
        return classification(nn.identity)({}, (), batch, key=None, train=True).loss_sum

    gradient = maybe_jit(jax.grad(loss))(LOGITS[:2])
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()
    assert gradient[0].any()


def test_an_impossible_label_that_counts_makes_the_loss_nan(maybe_jit):
    batch = {"x": LOGITS[:2], "y": jnp.array([0, 3])}
    run = maybe_jit(lambda: classification(nn.identity)({}, (), batch, key=None, train=True))
    assert np.isnan(run().loss_sum)


def test_weights_of_examples_hold_for_every_token_of_theirs(maybe_jit):
    batch = {"x": jnp.zeros((2, 5, 4)), "y": jnp.zeros((2, 5), jnp.int32)}
    run = maybe_jit(lambda batch: classification(nn.identity)({}, (), batch, key=None, train=False))
    outcome = run({**batch, "weight": jnp.array([2.0, 0.0])})
    assert float(outcome.weight) == 10
    np.testing.assert_allclose(outcome.loss_sum, 10 * np.log(4), rtol=1e-6)
    by_token = jnp.zeros((2, 5)).at[0, 0].set(1.0)
    assert float(run({**batch, "weight": by_token}).weight) == 1


def test_labels_are_smoothed_in_training_only():
    objective = classification(nn.identity, label_smoothing=0.5)
    train, evaluation = (
        objective({}, (), CLASSES, key=None, train=train).loss_sum for train in (True, False)
    )
    plain = losses.softmax_cross_entropy(LOGITS, CLASSES["y"])
    np.testing.assert_allclose(evaluation, (plain * CLASSES["weight"]).sum(), rtol=1e-6)
    assert float(train) != float(evaluation)


def test_metrics_can_be_chosen():
    objective = classification(
        nn.identity, train_metrics={"top": metrics.top_k_accuracy(2)}, eval_metrics={}
    )
    for train in (True, False):
        assert list(objective({}, (), CLASSES, key=None, train=train).metrics) == ["top"]


@pytest.mark.parametrize(("classes", "table"), [(3, True), (1000, True), (1001, False)])
def test_confusion_is_measured_where_a_table_of_it_has_a_size_to_look_at(classes, table):
    batch = {"x": jax.ShapeDtypeStruct((2, classes), jnp.float32), "y": jnp.zeros(2, jnp.int32)}
    objective = classification(nn.identity)
    found = jax.eval_shape(lambda b: objective({}, (), b, key=None, train=False), batch).metrics
    assert sorted(found) == ["accuracy", "confusion"][: 1 + table]
