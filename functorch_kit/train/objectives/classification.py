"""Classification: integer labels."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from functorch_kit import losses, metrics
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome

_MOST_CLASSES_IN_A_TABLE = 1000


def classification(
    model: Model,
    *,
    label_smoothing: float | jax.Array = 0.0,
    train_metrics: Mapping[str, metrics.ClassificationMetric] | None = None,
    eval_metrics: Mapping[str, metrics.ClassificationMetric] | None = None,
) -> Objective:
    """Cross-entropy of the model's logits against integer labels.

    Args:
        model: from ``batch["x"]`` to logits (batch, ..., classes).
        label_smoothing: see ``losses.softmax_cross_entropy``; off in evaluation; may be traced.
        train_metrics: name -> metric, in training and evaluation; ``accuracy`` if None.
        eval_metrics: name -> metric, in evaluation only; if None, ``confusion`` where there are at
            most 1000 classes: over a vocabulary it says little and may not fit.

    Returns:
        An objective of batches with ``x``, integer ``y`` (batch, ...) and, where examples count
        differently or are padding, ``weight`` (batch,) or of y's shape; ``y_other`` and ``share``
        (batch,) where examples were mixed, see ``data.mixtures``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> objective = train.classification(nn.identity)
        >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.array([0, 1, 1, 1])}
        >>> outcome = objective({}, (), batch, key=None, train=False)
        >>> round(float(outcome.loss_sum), 4), float(outcome.weight)
        (2.7726, 4.0)
        >>> float(outcome.metrics["accuracy"].compute())
        0.25
    """
    always = {"accuracy": metrics.accuracy} if train_metrics is None else train_metrics

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        logits, model_state = model.apply(params, model_state, batch["x"], key=key, train=train)
        labels = batch["y"]
        smoothing = label_smoothing if train else 0.0
        loss = losses.softmax_cross_entropy(logits, labels, smoothing)
        if "y_other" in batch:  # two examples in one, see ``data.mixtures``
            other = losses.softmax_cross_entropy(logits, batch["y_other"], smoothing)
            share = batch["share"].astype(loss.dtype)
            loss = share * loss + (1 - share) * other
        weight = example_weight(batch, loss)
        mean = metrics.weighted_mean(loss, weight)
        few = logits.shape[-1] <= _MOST_CLASSES_IN_A_TABLE
        table = {"confusion": metrics.confusion_matrix} if few else {}
        at_evaluation = table if eval_metrics is None else eval_metrics
        chosen = always if train else {**always, **at_evaluation}
        values = {name: metric(logits, labels, weight) for name, metric in chosen.items()}
        return Outcome(mean.total, mean.weight, model_state, values)

    return objective
