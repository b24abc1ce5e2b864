"""Metrics as summable pytrees that know how to finish themselves.

A metric of a batch is a value such as ``Mean(total, weight)``. Values of the same metric add, leaf
by leaf (``merge``), over micro-batches, batches, devices and processes; ``compute()`` comes last.
Sums are float32 or float64, whatever is summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from functorch_kit.types import PyTree, wide, wide_float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A weighted mean in the making.

    Attributes:
        total: sum of weight times value, shape ().
        weight: sum of the weights, shape ().

    Example:
        >>> import jax.numpy as jnp
        >>> one, other = Mean(jnp.array(3.0), jnp.array(1.0)), Mean(jnp.array(1.0), jnp.array(3.0))
        >>> float(merge(one, other).compute())
        1.0
    """

    total: Any
    weight: Any

    def compute(self) -> Any:
        """total / weight; NaN where no weight was seen."""
        return self.total / self.weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How much weight of each true class (row) was predicted as each class (column).

    Attributes:
        counts: (classes, classes).

    Example:
        >>> import jax.numpy as jnp
        >>> logits, labels = jnp.array([[9.0, 0.0], [8.0, 0.0]]), jnp.array([0, 1])
        >>> confusion_matrix(logits, labels, jnp.ones(2)).compute().tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """

    counts: Any

    def compute(self) -> Any:
        """The counts themselves."""
        return self.counts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class F1:
    """The harmonic mean of precision and recall in the making.

    Attributes:
        both: weight of what is positive and was predicted so.
        predicted: weight of what was predicted positive.
        positive: weight of what is positive.

    Example:
        >>> import jax.numpy as jnp
        >>> f1 = F1(both=jnp.array(1.0), predicted=jnp.array(1.0), positive=jnp.array(3.0))
        >>> float(f1.compute())  # precision 1, recall 1/3
        0.5
    """

    both: Any
    predicted: Any
    positive: Any

    def compute(self) -> Any:
        """2 both / (predicted + positive); NaN where nothing was or should have been found."""
        return 2 * self.both / (self.predicted + self.positive)


Metric = Mean | ConfusionMatrix | F1
ClassificationMetric = Callable[[Array, Array, Array], Metric]
"""``metric(logits, labels, weight) -> Metric``, or any summable pytree with a ``compute()``."""


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Add two metrics, or two pytrees of metrics.

    Example:
        >>> import jax.numpy as jnp
        >>> one = {"loss": Mean(jnp.array(2.0), jnp.array(1.0))}
        >>> float(merge(one, one)["loss"].total)
        4.0
    """
    return jax.tree.map(jnp.add, a, b)


def weighted_mean(values: Float[Array, "*batch"], weight: Float[Array, "*batch"]) -> Mean:
    """The mean of one value for each example.

    Values of weight 0 count for nothing, even when they are not finite.

    Args:
        values: one for each example (...).
        weight: one for each value (...).

    Example:
        >>> import jax.numpy as jnp
        >>> mean = weighted_mean(jnp.array([4.0, jnp.nan]), jnp.array([1.0, 0.0]))
        >>> float(mean.compute())
        4.0
    """
    values, weight = wide_float(values), wide_float(weight)
    return Mean(jnp.sum(jnp.where(weight == 0, 0, weight * values)), jnp.sum(weight))


def accuracy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    weight: Float[Array, "*batch"],
) -> Mean:
    """The share of examples whose largest logit is the label's.

    Args:
        logits: (..., classes).
        labels: integers (...).
        weight: (...), 0 for padding.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
        >>> float(accuracy(logits, jnp.array([1, 0, 1]), jnp.array([1.0, 1.0, 0.0])).compute())
        1.0
    """
    labels = wide(labels)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return weighted_mean(right.astype(weight.dtype), weight)


def top_k_accuracy(k: int) -> ClassificationMetric:
    """The share of examples whose label is among the k largest logits.

    The label's rank is the number of classes whose logit is larger, or is NaN: ties count as right,
    and a network that has diverged does not.

    Args:
        k: from 1 up.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[3.0, 2.0, 1.0]])
        >>> label, weight = jnp.array([1]), jnp.ones(1)
        >>> [float(top_k_accuracy(k)(logits, label, weight).compute()) for k in (1, 2)]
        [0.0, 1.0]
    """

    def metric(
        logits: Float[Array, "*batch classes"],
        labels: Integer[Array, "*batch"],
        weight: Float[Array, "*batch"],
    ) -> Mean:
        labels = wide(labels)
        own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
        # Not `logits > own`, which no NaN satisfies: a diverged network would be right every time.
        rank = jnp.sum(~(logits <= own), axis=-1)
        right = (rank < k) & (labels >= 0) & (labels < logits.shape[-1])
        return weighted_mean(right.astype(weight.dtype), weight)

    return metric


def confusion_matrix(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    weight: Float[Array, "*batch"],
) -> ConfusionMatrix:
    """True classes in rows, predicted classes in columns.

    Args:
        logits: (..., classes).
        labels: integers (...).
        weight: (...), 0 for padding.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[0.0, 1.0], [0.0, 1.0]])
        >>> confusion_matrix(logits, jnp.array([1, 0]), jnp.ones(2)).counts.tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """
    classes, weight = logits.shape[-1], wide_float(weight)
    true = jax.nn.one_hot(wide(labels).reshape(-1), classes, dtype=weight.dtype)
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1).reshape(-1), classes, dtype=weight.dtype)
    return ConfusionMatrix((true * weight.reshape(-1, 1)).T @ predicted)


def binary_accuracy(
    logits: Float[Array, "*batch labels"],
    targets: Shaped[Array, "*batch labels"],
    weight: Float[Array, "*batch labels"],
) -> Mean:
    """The share of all labels of all examples that are on the right side of even odds.

    Args:
        logits: log-odds (..., labels); above 0 is a yes.
        targets: 0 or 1; from 1/2 up is a yes.
        weight: of each label of each example, 0 for padding.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, targets = jnp.array([[2.0, -1.0, 3.0]]), jnp.array([[1, 0, 0]])
        >>> round(float(binary_accuracy(logits, targets, jnp.ones((1, 3))).compute()), 4)
        0.6667
    """
    return weighted_mean(_is_right(logits, targets).astype(weight.dtype), weight)


def accuracy_by_label(
    logits: Float[Array, "*batch labels"],
    targets: Shaped[Array, "*batch labels"],
    weight: Float[Array, "*batch labels"],
) -> Mean:
    """As ``binary_accuracy``, for each label: a Mean of shape (labels,).

    Args:
        logits: log-odds (..., labels); above 0 is a yes.
        targets: 0 or 1; from 1/2 up is a yes.
        weight: of each label of each example, 0 for padding.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, targets = jnp.array([[2.0, -1.0], [2.0, 1.0]]), jnp.array([[1, 0], [0, 1]])
        >>> accuracy_by_label(logits, targets, jnp.ones((2, 2))).compute().tolist()
        [0.5, 1.0]
    """
    weight = wide_float(weight)
    axes = tuple(range(weight.ndim - 1))
    right = weight * _is_right(logits, targets).astype(weight.dtype)
    return Mean(jnp.sum(right, axes), jnp.sum(weight, axes))


def micro_f1(
    logits: Float[Array, "*batch labels"],
    targets: Shaped[Array, "*batch labels"],
    weight: Float[Array, "*batch labels"],
) -> F1:
    """F1 over all labels of all examples together.

    Args:
        logits: log-odds (..., labels); above 0 is a yes.
        targets: 0 or 1; from 1/2 up is a yes.
        weight: of each label of each example, 0 for padding.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, targets = jnp.array([[2.0, -1.0, -3.0]]), jnp.array([[1, 1, 1]])
        >>> float(micro_f1(logits, targets, jnp.ones((1, 3))).compute())
        0.5
    """
    weight = wide_float(weight)
    predicted, positive = _is_yes(logits, targets)
    both = predicted & positive
    return F1(*(jnp.sum(jnp.where(of, weight, 0)) for of in (both, predicted, positive)))


def _is_yes(logits: Array, targets: Array) -> tuple[Array, Array]:
    return logits > 0, targets.astype(logits.dtype) >= 0.5


def _is_right(logits: Array, targets: Array) -> Array:
    predicted, positive = _is_yes(logits, targets)
    # A network that has diverged is not right, whichever side NaN falls on.
    return (predicted == positive) & ~jnp.isnan(logits)
