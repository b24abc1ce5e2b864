"""Regression: real targets."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array

from functorch_kit import losses, metrics
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome


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
        each = loss(y, targets)
        weight = example_weight(batch, each)
        mean = metrics.weighted_mean(each, weight)
        absolute = metrics.weighted_mean(losses.absolute_error(y, targets), weight)
        return Outcome(mean.total, mean.weight, model_state, {"absolute_error": absolute})

    return objective
