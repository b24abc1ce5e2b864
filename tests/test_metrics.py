from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit import metrics

pytestmark = pytest.mark.usefixtures("compiled_quickly")

LOGITS = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
LABELS = jnp.array([0, 2, 2, 1])
WEIGHT = jnp.array([1.0, 2.0, 0.5, 0.0])
NAN_PADDED = jnp.concatenate([LOGITS, jnp.full((2, 3), jnp.nan)])
METRICS = {
    "accuracy": metrics.accuracy,
    "top 2": metrics.top_k_accuracy(2),
    "confusion": metrics.confusion_matrix,
}


def test_accuracy_weighs_its_examples(maybe_jit):
    # Right: the first (1) and the third (0.5); wrong: the second (2); the last weighs nothing.
    mean = maybe_jit(metrics.accuracy)(LOGITS, LABELS, WEIGHT)
    assert (float(mean.total), float(mean.weight)) == (1.5, 3.5)


@pytest.mark.parametrize(("k", "right"), [(1, 1.5), (2, 3.5), (3, 3.5), (7, 3.5)])
def test_top_k_counts_labels_among_the_k_largest(k, right, maybe_jit):
    # The second example's label has the second largest logit.
    mean = maybe_jit(metrics.top_k_accuracy(k))(LOGITS, LABELS, WEIGHT)
    assert (float(mean.total), float(mean.weight)) == (right, 3.5)


def test_rows_of_the_confusion_matrix_are_true_and_columns_predicted_classes(maybe_jit):
    counts = maybe_jit(metrics.confusion_matrix)(LOGITS, LABELS, WEIGHT).compute()
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 0, 0], [0, 2, 0.5]])


def test_the_diagonal_of_the_confusion_matrix_is_the_accuracy():
    logits = jax.random.normal(jax.random.key(0), (50, 4))
    labels = jnp.arange(50) % 4
    counts = metrics.confusion_matrix(logits, labels, jnp.ones(50)).compute()
    mean = metrics.accuracy(logits, labels, jnp.ones(50))
    assert float(jnp.trace(counts)) == float(mean.total)
    np.testing.assert_array_equal(counts.sum(1), [13, 13, 12, 12])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_padding_counts_for_nothing_even_if_it_is_not_a_number(metric, maybe_jit):
    labels = jnp.concatenate([LABELS, jnp.array([0, -1])])
    weight = jnp.concatenate([WEIGHT, jnp.zeros(2)])
    padded = maybe_jit(metric)(NAN_PADDED, labels, weight)
    plain = maybe_jit(metric)(LOGITS, LABELS, WEIGHT)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("label", [-1, 3, -3, 2**31 - 1])
def test_an_impossible_label_is_never_right(metric, label, maybe_jit):
    value = maybe_jit(metric)(LOGITS[:1], jnp.array([label]), jnp.ones(1)).compute()
    assert float(jnp.sum(value)) == 0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("classes", [256, 300])
def test_labels_in_one_byte_serve_any_number_of_classes(metric, classes, maybe_jit):
    # The best logit is at 256 % classes: as a byte it is 0, which is the label.
    labels = jnp.array([0, 44, 255], jnp.uint8)
    logits = jax.nn.one_hot(jnp.array([256 % classes, 299 % classes, 255]), classes)
    wide = metric(logits, labels.astype(jnp.int32), jnp.ones(3))
    narrow = maybe_jit(metric)(logits, labels, jnp.ones(3))
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(a, b)
    if metric is metrics.accuracy and classes == 300:
        assert float(narrow.compute()) == pytest.approx(1 / 3)


def test_a_tie_at_the_edge_of_the_k_largest_counts_as_right():
    logits, labels = jnp.array([[1.0, 1.0, 0.0]] * 3), jnp.array([0, 1, 2])
    top_1 = metrics.top_k_accuracy(1)(logits, labels, jnp.ones(3))
    assert float(top_1.compute()) == pytest.approx(2 / 3)
    # The plain accuracy takes the first of the largest.
    assert float(metrics.accuracy(logits, labels, jnp.ones(3)).total) == 1


def test_a_network_that_has_diverged_is_not_right_among_the_k_largest():
    logits = jnp.full((2, 3), jnp.nan)
    top_1 = metrics.top_k_accuracy(1)(logits, jnp.array([0, 2]), jnp.ones(2))
    assert float(top_1.compute()) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_metrics_of_two_parts_add_to_the_metric_of_the_whole(cut, seed):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(12, 3)), random.integers(0, 3, 12)
    weight = random.integers(0, 4, 12).astype(np.float32)  # integers add exactly

    def measure(part: slice) -> dict:
        # Unequal parts would compile anew each time: the rest of the batch is padding.
        mask = np.zeros(12, np.float32)
        mask[part] = weight[part]
        return measure_all(logits.astype(np.float32), labels.astype(np.int32), mask)

    added = metrics.merge(measure(slice(0, cut)), measure(slice(cut, 12)))
    whole = measure(slice(0, 12))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


@jax.jit
def measure_all(logits, labels, weight):
    return {name: metric(logits, labels, weight) for name, metric in METRICS.items()}


def test_a_mean_of_nothing_is_nan(maybe_jit):
    mean = maybe_jit(metrics.weighted_mean)(jnp.ones(3), jnp.zeros(3))
    assert np.isnan(mean.compute())


def test_metrics_pass_through_loops_and_differentiation_of_a_value_that_counts_nothing(maybe_jit):
    def total(values):
        return metrics.weighted_mean(values, jnp.array([2.0, 0.0])).total

    assert maybe_jit(jax.grad(total))(jnp.array([1.0, jnp.inf])).tolist() == [2.0, 0.0]


ODDS = jnp.array([[2.0, -1.0, 0.5], [-3.0, -1.0, 4.0]])
TRUE = jnp.array([[1, 1, 0], [0, 0, 1]])
COUNTED = jnp.array([[1.0, 2.0, 1.0], [1.0, 0.0, 4.0]])


def test_labels_by_themselves_are_counted_by_hand(maybe_jit):
    # Right: 2.0 (weight 1), -3.0 (1), -1.0 (0), 4.0 (4); wrong: -1.0 (2), 0.5 (1).
    mean = maybe_jit(metrics.binary_accuracy)(ODDS, TRUE, COUNTED)
    assert (float(mean.total), float(mean.weight)) == (6, 9)
    by_label = maybe_jit(metrics.accuracy_by_label)(ODDS, TRUE, COUNTED)
    assert by_label.total.tolist() == [2, 0, 4]
    assert by_label.weight.tolist() == [2, 2, 5]
    # Yes to 2.0 (1), 0.5 (1) and 4.0 (4); true are 2.0 (1), the missed one (2) and 4.0 (4).
    f1 = maybe_jit(metrics.micro_f1)(ODDS, TRUE, COUNTED)
    assert (float(f1.both), float(f1.predicted), float(f1.positive)) == (5, 6, 7)
    precision, recall = 5 / 6, 5 / 7
    expected = 2 * precision * recall / (precision + recall)
    assert float(f1.compute()) == pytest.approx(expected)


BY_LABEL = [metrics.binary_accuracy, metrics.accuracy_by_label, metrics.micro_f1]


@pytest.mark.parametrize("metric", BY_LABEL)
def test_labels_that_are_not_known_count_for_nothing(metric, maybe_jit):
    odds = jnp.concatenate([ODDS, jnp.full((1, 3), jnp.nan)])
    true = jnp.concatenate([TRUE, jnp.full((1, 3), -1)])
    weight = jnp.concatenate([COUNTED, jnp.zeros((1, 3))])
    padded, plain = maybe_jit(metric)(odds, true, weight), metric(ODDS, TRUE, COUNTED)
    for a, b in zip(jax.tree.leaves(padded), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", BY_LABEL)
def test_a_network_that_has_diverged_has_no_label_right(metric):
    value = metric(jnp.full((2, 3), jnp.nan), jnp.array([[0, 1, 0]] * 2), jnp.ones((2, 3)))
    assert not np.asarray(value.compute()).any()


@pytest.mark.parametrize("metric", [*METRICS.values(), *BY_LABEL])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_have_at_least_32_bits(metric, dtype, maybe_jit):
    """In bfloat16 a count stops at 256, in float16 at 2048 and its squares at 65504."""
    shape = (3000, 3) if metric in BY_LABEL else (3000,)
    labels = jnp.ones(shape, jnp.int32)
    odds = jnp.ones((3000, 3), dtype) * jnp.array([[1, 2, 1]], dtype)
    value = maybe_jit(metric)(odds, labels, jnp.ones(shape, dtype))
    leaves = jax.tree.leaves(value)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert max(float(leaf.max()) for leaf in leaves) in (3000, 9000)
