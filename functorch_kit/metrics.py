"""Metrics as summable pytrees that know how to finish themselves.

A metric of a batch is a value such as ``Mean(total, weight)``. Values of the same metric add, leaf
by leaf (``merge``), over micro-batches, batches, devices and processes; ``compute()`` comes last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from functorch_kit.types import PyTree, wide


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


Metric = Mean | ConfusionMatrix
ClassificationMetric = Callable[[Array, Array, Array], Metric]
"""``metric(logits, labels, weight) -> Mean | ConfusionMatrix`` or any summable pytree like them."""


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
    classes = logits.shape[-1]
    true = jax.nn.one_hot(wide(labels).reshape(-1), classes, dtype=weight.dtype)
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1).reshape(-1), classes, dtype=weight.dtype)
    return ConfusionMatrix((true * weight.reshape(-1, 1)).T @ predicted)
