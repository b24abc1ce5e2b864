"""Losses per example: objectives weigh and add them, nothing here takes a mean over the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from functorch_kit.types import wide


def softmax_cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    label_smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, "*batch"]:
    """Minus the log-probability of the label, in nats.

    A label outside 0 … classes - 1 gives NaN: JAX's indexing would clamp it to a neighbour and
    train on silently.

    Args:
        logits: unnormalised log-probabilities (..., classes).
        labels: integers (...).
        label_smoothing: the share of the target spread evenly over all classes
            (Szegedy et al., 2016); may be traced.

    Returns:
        One loss for each label (...).

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
        >>> jnp.exp(-softmax_cross_entropy(logits, jnp.array([0]))).round(4).tolist()
        [0.5]
    """
    classes, labels = logits.shape[-1], wide(labels)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    # A comparison fuses and has a gradient without a scatter, which is slow on a CPU.
    is_label = labels[..., None] == jnp.arange(classes, dtype=labels.dtype).reshape(
        (1,) * labels.ndim + (classes,)
    )
    label_logit = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    loss = log_normalizer - label_logit
    if not (isinstance(label_smoothing, float) and label_smoothing == 0.0):
        smoothing = jnp.asarray(label_smoothing, logits.dtype)
        loss = (1 - smoothing) * loss + smoothing * (log_normalizer - jnp.mean(logits, axis=-1))
    return jnp.where((labels >= 0) & (labels < classes), loss, jnp.nan)


def squared_error(
    predictions: Float[Array, "batch *features"], targets: Float[Array, "batch *features"]
) -> Float[Array, " batch"]:
    """Squared differences of each example, summed over its features.

    Args:
        predictions: (batch, ...).
        targets: (batch, ...), the same shape.

    Returns:
        One loss for each example (batch,).

    Example:
        >>> import jax.numpy as jnp
        >>> squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])).tolist()
        [5.0]
    """
    return jnp.sum(jnp.square(predictions - targets), axis=tuple(range(1, predictions.ndim)))


def absolute_error(
    predictions: Float[Array, "batch *features"], targets: Float[Array, "batch *features"]
) -> Float[Array, " batch"]:
    """Absolute differences of each example, summed over its features.

    Args:
        predictions: (batch, ...).
        targets: (batch, ...), the same shape.

    Returns:
        One loss for each example (batch,).

    Example:
        >>> import jax.numpy as jnp
        >>> absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])).tolist()
        [3.0]
    """
    return jnp.sum(jnp.abs(predictions - targets), axis=tuple(range(1, predictions.ndim)))
