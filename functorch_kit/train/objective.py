"""Objectives: what a batch says of the parameters, as weighted sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from functorch_kit import losses, metrics
from functorch_kit.types import Model, Objective, Outcome


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
        eval_metrics: name -> metric, in evaluation only; ``confusion`` if None.

    Returns:
        An objective of batches with ``x``, integer ``y`` (batch, ...) and, where examples count
        differently or are padding, ``weight`` (batch,) or of y's shape.

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
    at_evaluation = (
        {"confusion": metrics.confusion_matrix} if eval_metrics is None else eval_metrics
    )

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        logits, model_state = model.apply(params, model_state, batch["x"], key=key, train=train)
        labels = batch["y"]
        weight = _weight(batch, labels.shape, logits.dtype)
        loss = losses.softmax_cross_entropy(logits, labels, label_smoothing if train else 0.0)
        mean = metrics.weighted_mean(loss, weight)
        chosen = always if train else {**always, **at_evaluation}
        values = {name: metric(logits, labels, weight) for name, metric in chosen.items()}
        return Outcome(mean.total, mean.weight, model_state, values)

    return objective


def language_model(model: Model, *, label_smoothing: float | jax.Array = 0.0) -> Objective:
    """Cross-entropy of the model's logits against the token that follows, in nats per token.

    Args:
        model: from tokens ``batch["x"]`` (batch, length) to logits (batch, length, vocabulary).
        label_smoothing: see ``losses.softmax_cross_entropy``; off in evaluation; may be traced.

    Returns:
        An objective of batches with integer ``x`` and ``y`` (batch, length), ``y`` being ``x`` one
        token on, and, where tokens count differently or are padding, ``weight`` (batch, length) or
        (batch,). Its metric is the ``accuracy`` over tokens.

    Raises:
        ValueError: logits that are not one row for each token.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> even = nn.lambda_(lambda x: jnp.zeros((*x.shape, 4)))
        >>> tokens = jnp.array([[0, 1, 2, 3, 0]])
        >>> batch = {"x": tokens[:, :-1], "y": tokens[:, 1:]}
        >>> outcome = train.language_model(even)({}, (), batch, key=None, train=False)
        >>> round(float(outcome.loss_sum / outcome.weight), 4), float(outcome.weight)  # log(4)
        (1.3863, 4.0)
    """

    def checked(params, model_state, x, *, key=None, train=False):
        logits, model_state = model.apply(params, model_state, x, key=key, train=train)
        if logits.shape[:-1] != x.shape:
            raise ValueError(f"language_model: logits are {logits.shape}, tokens {x.shape}")
        return logits, model_state

    # A confusion matrix over a vocabulary says little and may not fit.
    checking = Model(model.init, checked)
    return classification(checking, label_smoothing=label_smoothing, eval_metrics={})


def regression(
    model: Model, *, loss: Callable[[Array, Array], Array] = losses.squared_error
) -> Objective:
    """A loss between the model's predictions and real targets.

    The metric ``absolute_error`` is, like the default loss, a sum over the features of an example.

    Args:
        model: from ``batch["x"]`` to predictions of the shape of ``batch["y"]``.
        loss: ``loss(predictions, targets)`` -> one value for each example (batch,).

    Returns:
        An objective of batches with ``x``, ``y`` (batch, ...) and optionally ``weight`` (batch,).

    Raises:
        ValueError: predictions of another shape than the targets.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> objective = train.regression(nn.identity)
        >>> batch = {"x": jnp.array([[1.0], [2.0]]), "y": jnp.array([[0.0], [4.0]])}
        >>> float(objective({}, (), batch, key=None, train=False).loss_sum)
        5.0
    """

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        y, model_state = model.apply(params, model_state, batch["x"], key=key, train=train)
        targets = batch["y"]
        if y.shape != targets.shape:
            raise ValueError(f"regression: predictions are {y.shape}, targets {targets.shape}")
        weight = _weight(batch, targets.shape[:1], y.dtype)
        mean = metrics.weighted_mean(loss(y, targets), weight)
        absolute = metrics.weighted_mean(losses.absolute_error(y, targets), weight)
        return Outcome(mean.total, mean.weight, model_state, {"absolute_error": absolute})

    return objective


def _weight(batch, shape: tuple[int, ...], dtype) -> Array:
    if "weight" not in batch:
        return jnp.ones(shape, dtype)
    weight = batch["weight"].astype(dtype)
    weight = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
    return jnp.broadcast_to(weight, shape)
