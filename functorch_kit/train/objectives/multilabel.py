"""Multi-label classification: any number of labels may hold for an example."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from functorch_kit import losses, metrics
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome


def multilabel(
    model: Model,
    *,
    label_weight: jax.Array | None = None,
    train_metrics: Mapping[str, metrics.ClassificationMetric] | None = None,
    eval_metrics: Mapping[str, metrics.ClassificationMetric] | None = None,
) -> Objective:
    """Cross-entropy of each label by itself, in nats per label.

    The loss is a weighted mean over labels and examples: a label of weight 2 counts as if each
    example had it twice.

    Args:
        model: from ``batch["x"]`` to log-odds (batch, ..., labels).
        label_weight: what each label counts (labels,); 1 if None; may be traced.
        train_metrics: name -> metric, in training and evaluation; ``accuracy`` over all labels and
            ``f1``, of all labels together, if None.
        eval_metrics: name -> metric, in evaluation only; ``accuracy_by_label`` if None.

    Returns:
        An objective of batches with ``x``, ``y`` of the shape of the log-odds (0 or 1, or
        probabilities in between) and optionally ``weight``, (batch,) or of y's shape: 0 where a
        label is not known.

    Raises:
        ValueError: log-odds of another shape than ``y``.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> batch = {"x": jnp.array([[3.0, -3.0]]), "y": jnp.array([[1, 1]])}
        >>> objective = train.multilabel(nn.identity)
        >>> outcome = objective({}, (), batch, key=None, train=False)
        >>> float(outcome.weight), {k: m.compute().tolist() for k, m in outcome.metrics.items()}
        (2.0, {'accuracy': 0.5, 'f1': 0.6666666865348816, 'accuracy_by_label': [1.0, 0.0]})
    """
    always = (
        {"accuracy": metrics.binary_accuracy, "f1": metrics.micro_f1}
        if train_metrics is None
        else train_metrics
    )
    at_evaluation = (
        {"accuracy_by_label": metrics.accuracy_by_label} if eval_metrics is None else eval_metrics
    )

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        logits, model_state = model.apply(params, model_state, batch["x"], key=key, train=train)
        targets = batch["y"]
        if logits.shape != targets.shape:
            raise ValueError(f"multilabel: log-odds are {logits.shape}, targets {targets.shape}")
        loss = losses.sigmoid_cross_entropy(logits, targets)
        weight = example_weight(batch, loss)
        counted = weight
        if label_weight is not None:
            by_label = jnp.asarray(label_weight, weight.dtype)
            counted = weight * by_label.reshape((1,) * (weight.ndim - 1) + by_label.shape)
        mean = metrics.weighted_mean(loss, counted)
        chosen = always if train else {**always, **at_evaluation}
        # A label's weight steers the training; what is measured is measured evenly.
        values = {name: metric(logits, targets, weight) for name, metric in chosen.items()}
        return Outcome(mean.total, mean.weight, model_state, values)

    return objective
