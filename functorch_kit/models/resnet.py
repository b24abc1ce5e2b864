"""Residual networks: He, Zhang, Ren and Sun, 2016, as torchvision builds them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model


class _Stages(NamedTuple):
    blocks: tuple[int, int, int, int]
    is_bottleneck: bool


_DEPTHS = {
    18: _Stages((2, 2, 2, 2), False),
    34: _Stages((3, 4, 6, 3), False),
    50: _Stages((3, 4, 6, 3), True),
    101: _Stages((3, 4, 23, 3), True),
    152: _Stages((3, 8, 36, 3), True),
    200: _Stages((3, 24, 36, 3), True),
}
_EXPANSION = 4  # a bottleneck's output has four times the channels of its 3×3 convolution
# He et al., 2015: the variance of the gradient is kept through a ReLU.
_he_normal = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """A residual network.

    Attributes:
        depth: 18 or 34 (two 3×3 convolutions a block), 50, 101, 152 or 200 (bottlenecks, with the
            stride in the 3×3 convolution).
        outputs: size of the output.
        stem: ``"imagenet"``: a 7×7 convolution and a 3×3 max pool, both of stride 2; ``"cifar"``:
            one 3×3 convolution of stride 1, for small images.
        width: channels of the stem and of the first stage; each stage doubles them.
        is_preactivation: whether norm and ReLU stand before each convolution (He et al., 2016b), a
            norm and ReLU behind the last stage, and none in the stem.

    Example:
        >>> ResNetConfig().depth
        18
    """

    depth: int = 18
    outputs: int = 1000
    stem: str = "imagenet"
    width: int = 64
    is_preactivation: bool = False


def resnet(config: ResNetConfig) -> Model:
    """Stem, four stages of residual blocks, mean over space, dense head.

    Parameters are addressed like ``stages/2/blocks/0/body/conv_1/kernel``, and beside the body
    ``stages/2/blocks/0/shortcut/conv/kernel`` where a block changes the shape. With pre-activation
    the first norm of a block, which body and shortcut share, is ``stages/2/blocks/0/before/norm``.

    Args:
        config: see ``ResNetConfig``.

    Returns:
        A Model from images (batch, height, width, channels) to (batch, outputs); its model_state
        holds the running statistics of the batch norms.

    Raises:
        LayerError: a depth or a stem that there is none of.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.resnet(models.ResNetConfig())
        >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        >>> params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        11689512
    """
    if config.depth not in _DEPTHS:
        known = ", ".join(map(str, _DEPTHS))
        raise LayerError(f"resnet: depth {config.depth} is not one of {known}")
    blocks, is_bottleneck = _DEPTHS[config.depth]
    stages, channels = [], config.width
    for stage, count in enumerate(blocks):
        width = config.width * 2**stage
        out = width * (_EXPANSION if is_bottleneck else 1)
        parts = []
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            ends = not config.is_preactivation
            body = (_bottleneck if is_bottleneck else _basic)(width, stride, ends)
            shortcut = _projection(out, stride, ends) if channels != out else None
            parts.append((_block if ends else _preactivated)(body, shortcut))
            channels = out
        stages.append(nn.serial(blocks=nn.serial(*parts)))
    ending = {"norm": nn.batch_norm(), "relu": nn.relu} if config.is_preactivation else {}
    return nn.serial(
        stem=_stem(config),
        stages=nn.serial(*stages),
        **ending,
        pool=nn.global_avg_pool(),
        head=nn.dense(config.outputs),
    )


def _stem(config: ResNetConfig) -> Model:
    # Pre-activated, the first block brings its own norm.
    norm = {} if config.is_preactivation else {"norm": nn.batch_norm(), "relu": nn.relu}
    match config.stem:
        case "imagenet":
            pool = nn.max_pool((3, 3), strides=(2, 2), padding=1)
            return nn.serial(conv=_conv(config.width, 7, 2), **norm, pool=pool)
        case "cifar":
            return nn.serial(conv=_conv(config.width, 3, 1), **norm)
        case _:
            raise LayerError(f"resnet: stem {config.stem!r} is not 'imagenet' or 'cifar'")


def _block(body: Model, shortcut: Model | None) -> Model:
    """``relu(body(x) + shortcut(x))``."""
    return nn.parallel(
        body=body, shortcut=shortcut or nn.identity, combine=lambda a, b: jax.nn.relu(a + b)
    )


def _preactivated(body: Model, shortcut: Model | None) -> Model:
    """``body(before(x)) + x``; where the shape changes, the shortcut projects ``before(x)``."""

    def forward(part, x):
        ready = part("before", x)
        return part("body", ready) + (part("shortcut", ready) if shortcut else x)

    projection = {"shortcut": shortcut} if shortcut else {}
    before = nn.serial(norm=nn.batch_norm(), relu=nn.relu)
    return nn.graph(forward, before=before, body=body, **projection)


def _basic(width: int, stride: int, ends_in_norm: bool) -> Model:
    ending = {"norm_1": nn.batch_norm()} if ends_in_norm else {}
    return nn.serial(
        conv_0=_conv(width, 3, stride),
        norm_0=nn.batch_norm(),
        relu_0=nn.relu,
        conv_1=_conv(width, 3, 1),
        **ending,
    )


def _bottleneck(width: int, stride: int, ends_in_norm: bool) -> Model:
    ending = {"norm_2": nn.batch_norm()} if ends_in_norm else {}
    return nn.serial(
        conv_0=_conv(width, 1, 1),
        norm_0=nn.batch_norm(),
        relu_0=nn.relu,
        conv_1=_conv(width, 3, stride),
        norm_1=nn.batch_norm(),
        relu_1=nn.relu,
        conv_2=_conv(width * _EXPANSION, 1, 1),
        **ending,
    )


def _projection(channels: int, stride: int, ends_in_norm: bool) -> Model:
    norm = {"norm": nn.batch_norm()} if ends_in_norm else {}
    return nn.serial(conv=_conv(channels, 1, stride), **norm)


def _conv(features: int, size: int, stride: int) -> Model:
    # Padding on both sides, not "SAME", which for a stride of 2 pads one side only: the windows
    # stand where torchvision's stand, so that its weights fit.
    return nn.conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=_he_normal,
    )
