"""The autoencoder, plain (Hinton and Salakhutdinov, 2006) and variational."""

from __future__ import annotations

import dataclasses
import math

from functorch_kit import nn
from functorch_kit.models.vae import vae
from functorch_kit.types import Model


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Dense layers down to a few numbers, and up again; the defaults are for MNIST.

    Attributes:
        shape: of an example.
        hidden: widths on the way down; the way up takes them backwards.
        latent: numbers in the middle.
        is_variational: whether the middle is a distribution that training draws from (see ``vae``).

    Example:
        >>> AutoencoderConfig().latent
        20
    """

    shape: tuple[int, ...] = (28, 28, 1)
    hidden: tuple[int, ...] = (400,)
    latent: int = 20
    is_variational: bool = False


def autoencoder(config: AutoencoderConfig) -> Model:
    """An encoder and a decoder of dense layers with ReLU, under ``encoder/`` and ``decoder/``.

    Args:
        config: see ``AutoencoderConfig``.

    Returns:
        A Model from x (batch, *shape) to the same shape: means, or log-odds where the loss takes
        those.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.autoencoder(models.AutoencoderConfig(shape=(4, 4), hidden=(8,)))
        >>> params, _ = model.init(jax.random.key(0), jnp.ones((1, 4, 4)))
        >>> sorted(params), model.apply(params, (), jnp.ones((2, 4, 4)))[0].shape
        (['decoder', 'encoder'], (2, 4, 4))
    """
    middle = config.latent * (2 if config.is_variational else 1)
    encoder = nn.serial(flatten=nn.flatten(), **_dense(config.hidden, middle))
    up = _dense(config.hidden[::-1], math.prod(config.shape))
    shaped = nn.lambda_(lambda y: y.reshape(y.shape[0], *config.shape))
    decoder = nn.serial(**up, shape=shaped)
    if config.is_variational:
        return vae(encoder, decoder)
    return nn.serial(encoder=encoder, decoder=decoder)


def _dense(hidden: tuple[int, ...], outputs: int) -> dict[str, Model]:
    parts = {}
    for index, width in enumerate(hidden):
        parts |= {f"hidden_{index}": nn.dense(width), f"relu_{index}": nn.relu}
    return parts | {"head": nn.dense(outputs)}
