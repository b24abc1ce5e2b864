"""The generative adversarial network (Goodfellow et al., 2014)."""

from __future__ import annotations

import jax

from functorch_kit import nn
from functorch_kit.types import Model


def gan(generator: Model, discriminator: Model, *, latent: int) -> Model:
    """A generator and its judge; trained by ``train.adversarial(generator, discriminator)``.

    Args:
        generator: from standard normal z (batch, latent) to something like x (batch, ...).
        discriminator: from x to log-odds that it is real (batch, 1) or (batch,).
        latent: numbers that one made example is made from.

    Returns:
        A Model with parameters under ``generator/`` and ``discriminator/``. It is initialised by
        the spec of real x, and applied to z: it generates.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models, nn
        >>> model = models.gan(nn.dense(5), nn.dense(1), latent=3)
        >>> real = jax.ShapeDtypeStruct((4, 5), jnp.float32)
        >>> params, state = model.init(jax.random.key(0), real)
        >>> model.apply(params, state, jnp.zeros((2, 3)))[0].shape
        (2, 5)
    """

    def init(key, x_spec):
        z_spec = jax.ShapeDtypeStruct((x_spec.shape[0], latent), x_spec.dtype)
        made, judged = nn.serial(generator=generator), nn.serial(discriminator=discriminator)
        (params, state), (more, other) = made.init(key, z_spec), judged.init(key, x_spec)
        return params | more, ({**(state or {}), **(other or {})} or ())

    def apply(params, model_state, z, *, key=None, train=False):
        y, state = nn.apply_part("generator", generator, params, model_state, z, key, train)
        if jax.tree.leaves(state):
            model_state = {**model_state, "generator": state}
        return y, model_state

    return Model(init, apply)
