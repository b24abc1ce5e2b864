"""Variational inference: an autoencoder whose code is a distribution."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from functorch_kit import losses, metrics, nn
from functorch_kit.train.objectives.parts import apply_named, example_keys
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome


def variational(
    encoder: Model,
    decoder: Model,
    *,
    likelihood: Callable[[Array, Array], Array] = losses.bernoulli_nll,
    beta: float | jax.Array = 1.0,
) -> Objective:
    """Minus the evidence lower bound, in nats for each example (Kingma and Welling, 2014).

    One draw of the code is decoded for each example, and has a gradient; the divergence of the code
    from a standard normal is in closed form. In evaluation the draw follows from the example alone.

    Args:
        encoder: from ``batch["x"]`` to means and log-variances side by side (batch, 2 latent).
        decoder: from codes (batch, latent) to what ``likelihood`` takes.
        likelihood: ``likelihood(decoded, x)`` -> minus the log-likelihood of each example (batch,):
            ``losses.bernoulli_nll`` of log-odds, or ``losses.gaussian_nll`` of means, with a
            ``scale`` by ``functools.partial``.
        beta: factor of the divergence (Higgins et al., 2017); may be traced.

    Returns:
        An objective of batches with ``x`` and optionally ``weight`` (batch,), of params with
        ``encoder`` and ``decoder``, as ``models.vae(encoder, decoder)`` makes them. Its metrics are
        the two terms: ``reconstruction`` and ``kl``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models, nn, train
        >>> encoder, decoder = nn.dense(2 * 3), nn.dense(5)
        >>> batch = {"x": jnp.ones((4, 5))}
        >>> params, _ = models.vae(encoder, decoder).init(jax.random.key(0), batch["x"])
        >>> objective = train.variational(encoder, decoder)
        >>> outcome = objective(params, (), batch, key=jax.random.key(1), train=True)
        >>> terms = outcome.metrics
        >>> bool(abs(terms["reconstruction"].total + terms["kl"].total - outcome.loss_sum) < 1e-4)
        True
    """

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        x = batch["x"]
        described, model_state = apply_named("encoder", encoder, params, model_state, x, key, train)
        mean, log_variance = nn.mean_and_log_variance(described)
        keys = example_keys(nn.part_key(key, "sample"), x, train=train)
        noise = jax.vmap(lambda key, like: jax.random.normal(key, like.shape, like.dtype))(
            keys, mean
        )
        code = mean + jnp.exp(log_variance / 2) * noise
        decoded, model_state = apply_named(
            "decoder", decoder, params, model_state, code, key, train
        )
        reconstruction, divergence = likelihood(decoded, x), losses.gaussian_kl(mean, log_variance)
        weight = example_weight(batch, reconstruction)
        terms = {
            "reconstruction": metrics.weighted_mean(reconstruction, weight),
            "kl": metrics.weighted_mean(divergence, weight),
        }
        factor = jnp.asarray(beta, divergence.dtype)
        total = terms["reconstruction"].total + factor * terms["kl"].total
        return Outcome(total, terms["kl"].weight, model_state, terms)

    return objective
