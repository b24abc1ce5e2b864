"""Language modelling: the token that follows."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer

from functorch_kit import losses, metrics
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome


def language_model(model: Model, *, label_smoothing: float | jax.Array = 0.0) -> Objective:
    """Cross-entropy of the model's logits against the token that follows, in nats per token.

    Several documents may stand in one sequence: ``x`` is then a dict of ``tokens``, of
    ``segments``, which number the documents from 1 and are 0 for padding, and of whatever else the
    model takes (``positions``). A document's last token has no target within it and does not count,
    whatever the weight says; nor does padding. See ``data.Packed``, ``models.gpt``.

    Args:
        model: from ``batch["x"]``, tokens (batch, length) or such a dict, to logits (batch, length,
            vocabulary).
        label_smoothing: see ``losses.softmax_cross_entropy``; off in evaluation; may be traced.

    Returns:
        An objective of batches with ``x``, integer ``y`` (batch, length), the tokens of ``x`` one
        on, and, where tokens count differently or are padding, ``weight`` (batch, length) or
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

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        x, following = batch["x"], batch["y"]
        logits, model_state = model.apply(params, model_state, x, key=key, train=train)
        if logits.shape[:-1] != following.shape:
            raise ValueError(f"language_model: logits are {logits.shape}, tokens {following.shape}")
        loss = losses.softmax_cross_entropy(logits, following, label_smoothing if train else 0.0)
        weight = example_weight(batch, loss)
        if isinstance(x, Mapping) and "segments" in x:
            weight = jnp.where(_has_target(x["segments"]), weight, 0)
        mean = metrics.weighted_mean(loss, weight)
        accuracy = metrics.accuracy(logits, following, weight)
        return Outcome(mean.total, mean.weight, model_state, {"accuracy": accuracy})

    return objective


def _has_target(segments: Integer[Array, "batch length"]) -> Array:
    """Whether the next token is of the same document; of the last in the row only its weight tells.

    So long as it is no padding.
    """
    next_segment = jnp.concatenate([segments[:, 1:], segments[:, -1:]], axis=1)
    return (segments == next_segment) & (segments != 0)
