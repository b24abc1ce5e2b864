"""The variational autoencoder (Kingma and Welling, 2014)."""

from __future__ import annotations

from functorch_kit import nn
from functorch_kit.types import Model


def vae(encoder: Model, decoder: Model) -> Model:
    """Encode, draw, decode; trained by ``train.variational(encoder, decoder)``.

    The parts' parameters stand under ``encoder/`` and ``decoder/``, so that either can be applied
    by itself: ``decoder.apply(params["decoder"], (), z)`` makes examples from standard normal z.

    Args:
        encoder: from x (batch, ...) to means and log-variances side by side (batch, 2 latent).
        decoder: from (batch, latent) to the parameters of x's distribution: log-odds, or means.

    Returns:
        A Model from x to what the decoder says, of a draw in training, of the mean in evaluation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models, nn
        >>> model = models.vae(encoder=nn.dense(2 * 3), decoder=nn.dense(5))
        >>> params, _ = model.init(jax.random.key(0), jax.ShapeDtypeStruct((4, 5), jnp.float32))
        >>> params["encoder"]["kernel"].shape, params["decoder"]["kernel"].shape
        ((5, 6), (3, 5))
    """
    return nn.serial(encoder=encoder, sample=nn.gaussian_sample(), decoder=decoder)
