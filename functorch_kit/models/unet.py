"""U-Net: Ronneberger, Fischer and Brox, 2015, with padded convolutions and batch norm."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

_he_normal = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """A U-Net.

    Attributes:
        features: channels at each size of the image, from the whole one down; the paper's are
            ``(64, 128, 256, 512, 1024)``.
        outputs: channels of the output.

    Example:
        >>> UNetConfig().features
        (16, 32, 64)
    """

    features: tuple[int, ...] = (16, 32, 64)
    outputs: int = 2


def unet(config: UNetConfig) -> Model:
    """Down by pools, up by transposed convolutions, with what was seen on the way down beside.

    A level stands inside the level above it: parameters are addressed like
    ``body/enter/conv_0/kernel``, ``body/inner/under/below/…``, ``body/inner/under/rise/kernel``,
    ``body/leave/conv_0/kernel`` and ``head/kernel``.

    Args:
        config: see ``UNetConfig``.

    Returns:
        A Model from images (batch, height, width, channels) to (batch, height, width, outputs).

    Raises:
        LayerError: no features; an image whose sides the pools do not divide.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.unet(models.UNetConfig(features=(2, 4)))
        >>> x = jnp.ones((1, 4, 6, 3))
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(model.apply, params, state, x)[0].shape
        (1, 4, 6, 2)
    """
    if not config.features:
        raise LayerError("unet: features is empty: give the channels at each size")
    level = _double(config.features[-1])
    for depth in reversed(range(len(config.features) - 1)):
        level = _level(config.features[depth], level)
    factor = 2 ** (len(config.features) - 1)

    def forward(part, x):
        if x.shape[1] % factor or x.shape[2] % factor:
            raise LayerError(
                f"unet: {len(config.features) - 1} pools do not divide an image of "
                f"{x.shape[1]}×{x.shape[2]}: give sides that are multiples of {factor}"
            )
        return part("head", part("body", x))

    return nn.graph(forward, body=level, head=nn.conv(config.outputs, (1, 1)))


def _level(width: int, below: Model) -> Model:
    """``seen = enter(x)``, then ``leave([seen, rise(below(pool(seen)))])``."""
    under = nn.serial(
        pool=nn.max_pool((2, 2)),
        below=below,
        rise=nn.conv_transpose(width, (2, 2), strides=2),
    )
    beside = nn.parallel(seen=nn.identity, under=under, combine=lambda *ys: jnp.concatenate(ys, -1))
    return nn.serial(enter=_double(width), inner=beside, leave=_double(width))


def _double(width: int) -> Model:
    parts = {}
    for index in range(2):
        parts[f"conv_{index}"] = nn.conv(
            width, (3, 3), padding=1, use_bias=False, kernel_init=_he_normal
        )
        parts[f"norm_{index}"] = nn.batch_norm()
        parts[f"relu_{index}"] = nn.relu
    return nn.serial(**parts)
