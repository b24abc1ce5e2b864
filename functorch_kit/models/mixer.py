"""MLP-Mixer: Tolstikhin et al., 2021."""

from __future__ import annotations

import dataclasses
import functools

import jax

from functorch_kit import nn
from functorch_kit.models.patches import patches
from functorch_kit.types import Model

# As the paper, by the error function; `nn.gelu` takes the tanh.
_gelu = nn.lambda_(functools.partial(jax.nn.gelu, approximate=False))


@dataclasses.dataclass(frozen=True)
class MixerConfig:
    """An MLP-Mixer; the defaults are the paper's S/16.

    Attributes:
        layers: number of blocks.
        width: size of a patch's vector.
        patch: side of a patch, in pixels.
        token_hidden: width inside the MLP that mixes patches.
        channel_hidden: width inside the MLP that mixes channels.
        outputs: size of the output.
        dropout: rate behind each of the two MLPs of a block; may be traced.

    Example:
        >>> MixerConfig().width
        512
    """

    layers: int = 8
    width: int = 512
    patch: int = 16
    token_hidden: int = 256
    channel_hidden: int = 2048
    outputs: int = 1000
    dropout: float | jax.Array = 0.0


_LARGE = MixerConfig(layers=24, width=1024, token_hidden=512, channel_hidden=4096)
_BASE = MixerConfig(layers=12, width=768, token_hidden=384, channel_hidden=3072)

MIXER_SIZES = {
    "mixer_s32": MixerConfig(patch=32),
    "mixer_s16": MixerConfig(),
    "mixer_b32": dataclasses.replace(_BASE, patch=32),
    "mixer_b16": _BASE,
    "mixer_l32": dataclasses.replace(_LARGE, patch=32),
    "mixer_l16": _LARGE,
}
"""Published sizes by name; the number is the patch's side."""


def mixer(config: MixerConfig) -> Model:
    """Patches, blocks that mix first patches and then channels, layer norm, mean, head.

    Parameters are addressed like ``blocks/3/token/body/mlp/up/kernel``.

    Args:
        config: see ``MixerConfig``.

    Returns:
        A Model from images (batch, height, width, channels), of the size at initialisation, to
        (batch, outputs).

    Raises:
        LayerError: a patch that does not divide the image.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.mixer(models.MixerConfig(layers=1, width=4, patch=2, outputs=3))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
        >>> model.apply(params, state, jnp.ones((2, 4, 4, 1)))[0].shape
        (2, 3)
    """
    return nn.serial(
        patches=patches(config.width, config.patch),
        blocks=nn.serial(*(_block(config) for _ in range(config.layers))),
        norm=nn.layer_norm(epsilon=1e-6),
        pool=nn.global_avg_pool(),
        head=nn.dense(config.outputs),
    )


def _block(config: MixerConfig) -> Model:
    token = nn.serial(
        norm=nn.layer_norm(epsilon=1e-6),
        mlp=_over_patches(config.token_hidden),
        dropout=nn.dropout(config.dropout),
    )
    channel = nn.serial(
        norm=nn.layer_norm(epsilon=1e-6),
        mlp=_mlp(config.channel_hidden, config.width),
        dropout=nn.dropout(config.dropout),
    )
    return nn.serial(token=nn.residual(token), channel=nn.residual(channel))


def _mlp(hidden: int, width: int) -> Model:
    return nn.serial(up=nn.dense(hidden), gelu=_gelu, down=nn.dense(width))


def _over_patches(hidden: int) -> Model:
    """An MLP along the axis of patches, whose number the input tells."""

    def init(key, x_spec):
        batch, count, width = x_spec.shape
        turned = jax.ShapeDtypeStruct((batch, width, count), x_spec.dtype)
        return _mlp(hidden, count).init(key, turned)

    def apply(params, model_state, x, *, key=None, train=False):
        mlp = _mlp(hidden, params["down"]["kernel"].shape[-1])
        y, _ = mlp.apply(params, (), x.swapaxes(1, 2), key=key, train=train)
        return y.swapaxes(1, 2), ()

    return Model(init, apply)
