"""The vision transformer: Dosovitskiy et al., 2021."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from functorch_kit import nn
from functorch_kit.models.patches import patches
from functorch_kit.models.transformer import pre_norm_block
from functorch_kit.types import Model


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer; the defaults are the paper's B/16.

    Attributes:
        layers: number of blocks.
        heads: attention heads of a block; must divide the width.
        width: size of a patch's vector.
        hidden: width inside the MLP; ``4 * width`` if None.
        patch: side of a patch, in pixels.
        outputs: size of the output.
        dropout: rate after the embedding and behind each half of a block; may be traced.
        is_repeated: whether one block is scanned over depth (see ``nn.repeat``).
        epsilon: added by norms to the variance.

    Example:
        >>> ViTConfig().heads
        12
    """

    layers: int = 12
    heads: int = 12
    width: int = 768
    hidden: int | None = None
    patch: int = 16
    outputs: int = 1000
    dropout: float | jax.Array = 0.0
    is_repeated: bool = False
    epsilon: float = 1e-6


_LARGE = ViTConfig(layers=24, heads=16, width=1024)

VIT_SIZES = {
    "vit_ti16": ViTConfig(heads=3, width=192),
    "vit_s16": ViTConfig(heads=6, width=384),
    "vit_b32": ViTConfig(patch=32),
    "vit_b16": ViTConfig(),
    "vit_l32": dataclasses.replace(_LARGE, patch=32),
    "vit_l16": _LARGE,
    "vit_h14": ViTConfig(layers=32, heads=16, width=1280, patch=14),
}
"""Published sizes by name; the number is the patch's side. Ti and S are of Touvron et al., 2021."""


def vit(config: ViTConfig) -> Model:
    """Patches, a class token, learned positions, blocks of attention and MLP, norm, head.

    Parameters are addressed like ``blocks/3/attention/query/kernel``.

    Args:
        config: see ``ViTConfig``.

    Returns:
        A Model from images (batch, height, width, channels), of the size at initialisation, to
        (batch, outputs).

    Raises:
        LayerError: heads that do not divide the width; a patch that does not divide the image.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.vit(models.ViTConfig(layers=1, heads=2, width=4, patch=2, outputs=3))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
        >>> model.apply(params, state, jnp.ones((2, 4, 4, 1)))[0].shape
        (2, 3)
    """
    block = _block(config)
    return nn.serial(
        patches=patches(config.width, config.patch),
        class_token=_class_token(),
        position=_positions(),
        dropout=nn.dropout(config.dropout),
        blocks=(
            nn.repeat(block, config.layers)
            if config.is_repeated
            else nn.stack(*[block] * config.layers)
        ),
        norm=nn.layer_norm(epsilon=config.epsilon),
        first=nn.lambda_(lambda x: x[:, 0]),
        head=nn.dense(config.outputs),
    )


def _class_token() -> Model:
    """A learned vector in front of the patches, of which the head reads what becomes of it."""

    def init(key, x_spec):
        return {"embedding": jnp.zeros((1, x_spec.shape[-1]), x_spec.dtype)}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        token = params["embedding"].astype(x.dtype)[None]
        return jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], *token.shape[1:])), x], 1), ()

    return Model(init, apply)


def _positions() -> Model:
    """A row for each position that there is at initialisation."""

    def init(key, x_spec):
        return nn.position_embedding(x_spec.shape[1]).init(key, x_spec)

    def apply(params, model_state, x, *, key=None, train=False):
        rows = params["embedding"].shape[0]
        return nn.position_embedding(rows).apply(params, (), x)

    return Model(init, apply)


def _block(config: ViTConfig) -> Model:
    mlp = nn.serial(
        up=nn.dense(config.hidden or 4 * config.width),
        gelu=nn.lambda_(functools.partial(jax.nn.gelu, approximate=False)),
        down=nn.dense(config.width),
    )
    return pre_norm_block(
        nn.attention(config.heads),
        mlp,
        norm=functools.partial(nn.layer_norm, epsilon=config.epsilon),
        dropout=config.dropout,
    )
