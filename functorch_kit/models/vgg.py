"""VGG: Simonyan and Zisserman, 2015, as torchvision builds them."""

from __future__ import annotations

import dataclasses

import jax

from functorch_kit import nn
from functorch_kit.models.alexnet import classifier
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

# Convolutions in each of the five stages.
_STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS = (64, 128, 256, 512, 512)
_he_normal = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class VGGConfig:
    """A VGG.

    Attributes:
        depth: layers with weights: 11, 13, 16 or 19.
        outputs: size of the output.
        dropout: rate behind each of the two hidden dense layers; may be traced.
        use_norm: whether a batch norm follows each convolution.
        dense: width of the hidden dense layers.

    Example:
        >>> VGGConfig().depth
        16
    """

    depth: int = 16
    outputs: int = 1000
    dropout: float | jax.Array = 0.5
    use_norm: bool = False
    dense: int = 4096


def vgg(config: VGGConfig) -> Model:
    """Five stages of 3×3 convolutions, each ended by a 2×2 max pool, and three dense layers.

    Parameters are addressed like ``stages/2/conv_0/kernel`` and ``classifier/dense_0/kernel``.

    Args:
        config: see ``VGGConfig``.

    Returns:
        A Model from images (batch, height, width, channels), 32 pixels or more, to (batch,
        outputs).

    Raises:
        LayerError: a depth that there is none of.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.vgg(models.VGGConfig())
        >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        138357544
    """
    if config.depth not in _STAGES:
        known = ", ".join(map(str, _STAGES))
        raise LayerError(f"vgg: depth {config.depth} is not one of {known}")
    counts = zip(_STAGES[config.depth], _WIDTHS, strict=True)
    return nn.serial(
        stages=nn.serial(*(_stage(count, width, config.use_norm) for count, width in counts)),
        pool=nn.adaptive_avg_pool((7, 7)),
        flatten=nn.flatten(),
        classifier=classifier(config.dense, config.outputs, config.dropout, drops_first=False),
    )


def _stage(count: int, width: int, use_norm: bool) -> Model:
    parts = {}
    for index in range(count):
        parts[f"conv_{index}"] = nn.conv(width, (3, 3), padding=1, kernel_init=_he_normal)
        if use_norm:
            parts[f"norm_{index}"] = nn.batch_norm()
        parts[f"relu_{index}"] = nn.relu
    return nn.serial(**parts, pool=nn.max_pool((2, 2)))
