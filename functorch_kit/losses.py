"""Losses per example: objectives weigh and add them, nothing here takes a mean over the batch.

What comes in fewer than 32 bits is widened first: a loss is float32 or float64.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from functorch_kit.types import wide, wide_float


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
    classes, labels, logits = logits.shape[-1], wide(labels), wide_float(logits)
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


def sigmoid_cross_entropy(
    logits: Float[Array, "*shape"], targets: Shaped[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Minus the log-probability of each target by itself, in nats.

    A target outside 0 … 1 gives NaN: its loss would have no lower bound.

    Args:
        logits: log-odds (...).
        targets: 0 or 1 (bool, integer or float), or probabilities in between (...).

    Returns:
        One loss for each target (...).

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.log(jnp.array([3.0, 3.0]))  # odds of three to one
        >>> jnp.exp(-sigmoid_cross_entropy(logits, jnp.array([1, 0]))).round(4).tolist()
        [0.75, 0.25]
    """
    logits = wide_float(logits)
    targets = targets.astype(logits.dtype)
    # -t log sigmoid(z) - (1 - t) log sigmoid(-z), of which neither term overflows.
    loss = jax.nn.softplus(logits) - targets * logits
    return jnp.where((targets >= 0) & (targets <= 1), loss, jnp.nan)


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
    return _by_example(jnp.square(_difference(predictions, targets)))


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
    return _by_example(jnp.abs(_difference(predictions, targets)))


def bernoulli_nll(
    logits: Float[Array, "batch *features"], x: Float[Array, "batch *features"]
) -> Float[Array, " batch"]:
    """Minus the log-likelihood of features from 0 to 1, each a coin of its own, in nats.

    Args:
        logits: log-odds (batch, ...).
        x: from 0 to 1 (batch, ...).

    Returns:
        One loss for each example (batch,), summed over its features.

    Example:
        >>> import jax.numpy as jnp
        >>> nll = bernoulli_nll(jnp.zeros((1, 3)), jnp.array([[0.0, 1.0, 0.5]]))
        >>> round(float(nll[0]), 4)  # 3 log(2)
        2.0794
    """
    return _by_example(sigmoid_cross_entropy(logits, x))


def gaussian_nll(
    mean: Float[Array, "batch *features"],
    x: Float[Array, "batch *features"],
    scale: float | Float[Array, ""] = 1.0,
) -> Float[Array, " batch"]:
    """Minus the log-density of features under normal distributions of one standard deviation.

    Args:
        mean: of each feature (batch, ...).
        x: (batch, ...).
        scale: the standard deviation, in the unit of x; may be traced.

    Returns:
        One loss for each example (batch,), summed over its features, in nats.

    Example:
        >>> import jax.numpy as jnp
        >>> nll = gaussian_nll(jnp.zeros((1, 1)), jnp.ones((1, 1)))
        >>> round(float(nll[0]), 4)  # (1 + log(2 pi)) / 2
        1.4189
    """
    difference = _difference(mean, x)
    scale = jnp.asarray(scale, difference.dtype)
    per_feature = jnp.square(difference / scale) / 2 + jnp.log(scale) + math.log(2 * math.pi) / 2
    return _by_example(per_feature)


def gaussian_kl(
    mean: Float[Array, "batch *features"], log_variance: Float[Array, "batch *features"]
) -> Float[Array, " batch"]:
    """Divergence of independent normal distributions from standard ones, in nats.

    Args:
        mean: of each feature (batch, ...).
        log_variance: logarithm of each feature's variance (batch, ...).

    Returns:
        KL(N(mean, variance) || N(0, 1)) for each example (batch,), summed over its features.

    Example:
        >>> import jax.numpy as jnp
        >>> gaussian_kl(jnp.array([[2.0, 0.0]]), jnp.zeros((1, 2))).tolist()
        [2.0]
    """
    mean, log_variance = wide_float(mean), wide_float(log_variance)
    # expm1: close to variance 1 its difference from 1 is all that there is.
    return _by_example((jnp.square(mean) + jnp.expm1(log_variance) - log_variance) / 2)


def nt_xent(
    one: Float[Array, "batch features"],
    other: Float[Array, "batch features"],
    *,
    temperature: float | Float[Array, ""] = 0.1,
    present: Shaped[Array, " batch"] | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """How hard it is to find an example's other view among all views in the batch.

    The normalised, temperature-scaled cross-entropy of SimCLR (Chen et al., 2020), which is InfoNCE
    (van den Oord et al., 2018) taken both ways: for each view, the softmax over the cosine
    similarities with all other views, divided by the temperature, of the view that belongs to it.

    Args:
        one: vectors of one view of each example (batch, features), of any length.
        other: likewise of another view.
        temperature: small values heed the hardest negatives only; may be traced.
        present: where 0 or False, an example is padding and no one's negative; all are if None.

    Returns:
        Losses (batch,), the mean over an example's two views, in nats, and the share of its two
        views whose partner was nearest (batch,).

    Example:
        >>> import jax.numpy as jnp
        >>> views = jnp.eye(2)
        >>> loss, found = nt_xent(views, views, temperature=1.0)
        >>> round(float(jnp.exp(-loss[0])), 4), found.tolist()  # e / (e + 1 + 1)
        (0.5761, [1.0, 1.0])
    """
    count = one.shape[0]
    views = wide_float(jnp.concatenate([one, other]))
    absent = jnp.zeros(2 * count, bool) if present is None else jnp.tile(present == 0, 2)
    # What padding holds may be no number: it must reach neither a sum nor a gradient.
    views = jnp.where(absent[:, None], 0, views)
    # The length itself has no gradient at 0: vectors below 1e-6 keep theirs.
    squares = jnp.sum(jnp.square(views), axis=-1, keepdims=True)
    views = views * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    similarity = views @ views.T / jnp.asarray(temperature, views.dtype)
    similarity = jnp.where(jnp.eye(2 * count, dtype=bool) | absent[None], -jnp.inf, similarity)
    similarity = jnp.where(absent[:, None], 0, similarity)
    partner = jnp.roll(jnp.arange(2 * count), count)
    loss = softmax_cross_entropy(similarity, partner)
    found = jnp.argmax(similarity, axis=-1).astype(partner.dtype) == partner
    return loss.reshape(2, count).mean(0), found.astype(loss.dtype).reshape(2, count).mean(0)


def _difference(predictions: Array, targets: Array) -> Array:
    return wide_float(predictions) - wide_float(targets)


def _by_example(values: Array) -> Array:
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
