"""Language modelling: the token that follows."""

from __future__ import annotations

import jax

from functorch_kit.train.objectives.classification import classification
from functorch_kit.types import Model, Objective


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
