"""Inception-V1, GoogLeNet: Szegedy et al., 2015, as torchvision builds it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

# Channels of the four branches: 1×1; 1×1 then 3×3; 1×1 then 3×3 again; pool then 1×1. The paper's
# third branch is 5×5; torchvision's is 3×3, and its counts and weights are what the field compares.
_MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
_HEARD = {"4a": "auxiliary_0", "4d": "auxiliary_1"}  # modules that an auxiliary head listens to
# One more row and column at the end only is what PyTorch calls ceil_mode, for a stride of 2.
_AT_THE_END = ((0, 1), (0, 1))


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
    """An Inception-V1.

    Attributes:
        outputs: size of the output.
        dropout: rate before the head; may be traced.
        auxiliary: whether there are two more heads half-way, for training.
        auxiliary_dropout: rate in those; may be traced.
        transform_input: whether images normalised by ImageNet's mean and deviation are brought to
            the scale from -1 to 1 first: torchvision's weights of this model were trained on it.

    Example:
        >>> InceptionConfig().auxiliary
        False
    """

    outputs: int = 1000
    dropout: float | jax.Array = 0.2
    auxiliary: bool = False
    auxiliary_dropout: float | jax.Array = 0.7
    transform_input: bool = False


def inception(config: InceptionConfig) -> Model:
    """A stem of three convolutions, nine modules of four branches each, mean over space, head.

    Parameters are addressed like ``4a/branch_1/1/conv/kernel``.

    Args:
        config: see ``InceptionConfig``.

    Returns:
        A Model from images (batch, height, width, channels) to (batch, outputs); with auxiliary
        heads, in training, to a dict of ``logits``, ``auxiliary_0`` and ``auxiliary_1``, whose
        losses the paper adds with a weight of 0.3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.inception(models.InceptionConfig())
        >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        6624904
    """
    body = _body()
    heard = _HEARD if config.auxiliary else {}
    heads = {name: _auxiliary(config.outputs, config.auxiliary_dropout) for name in heard.values()}

    def forward(part, x):
        outputs = {}
        if config.transform_input:
            x = _from_minus_one_to_one(x)
        for name in body:
            x = part(name, x)
            if name in heard and part.train:
                outputs[heard[name]] = part(heard[name], x)
        logits = part("head", x)
        return {"logits": logits, **outputs} if outputs else logits

    return nn.graph(forward, **body, **heads, head=_ending(config))


def _from_minus_one_to_one(x):
    """Images of ImageNet's mean 0 and deviation 1 by channel, as if 0.5 were both."""
    if x.shape[-1] != 3:
        raise LayerError(
            f"inception: transform_input is for images of 3 channels, and here are {x.shape[-1]}"
        )
    mean, deviation = np.array([[[[0.485, 0.456, 0.406]]], [[[0.229, 0.224, 0.225]]]])
    scale, shift = deviation / 0.5, (mean - 0.5) / 0.5
    return x * jnp.asarray(scale[None], x.dtype) + jnp.asarray(shift[None], x.dtype)


def _body() -> dict[str, Model]:
    """The parts in order; each name of a module is its name in the paper."""
    pool = nn.max_pool((3, 3), strides=(2, 2), padding=_AT_THE_END)
    stem = {
        "conv_0": _conv(64, 7, 2),
        "pool_0": pool,
        "conv_1": _conv(64, 1),
        "conv_2": _conv(192, 3),
        "pool_1": pool,
    }
    modules = {}
    for name, widths in _MODULES.items():
        modules[name] = _module(*widths)
        if name == "3b":
            modules["pool_2"] = pool
        elif name == "4e":
            modules["pool_3"] = nn.max_pool((2, 2), padding=_AT_THE_END)
    return stem | modules


def _ending(config: InceptionConfig) -> Model:
    return nn.serial(
        pool=nn.global_avg_pool(),
        dropout=nn.dropout(config.dropout),
        dense=nn.dense(config.outputs),
    )


def _module(first: int, second: tuple[int, int], third: tuple[int, int], last: int) -> Model:
    return nn.parallel(
        branch_0=_conv(first, 1),
        branch_1=nn.serial(_conv(second[0], 1), _conv(second[1], 3)),
        branch_2=nn.serial(_conv(third[0], 1), _conv(third[1], 3)),
        branch_3=nn.serial(nn.max_pool((3, 3), strides=(1, 1), padding=1), _conv(last, 1)),
        combine=lambda *ys: jnp.concatenate(ys, -1),
    )


def _auxiliary(outputs: int, dropout: float | jax.Array) -> Model:
    return nn.serial(
        pool=nn.adaptive_avg_pool((4, 4)),
        conv=_conv(128, 1),
        flatten=nn.flatten(),
        dense=nn.dense(1024),
        relu=nn.relu,
        dropout=nn.dropout(dropout),
        head=nn.dense(outputs),
    )


def _conv(features: int, size: int, stride: int = 1) -> Model:
    return nn.serial(
        conv=nn.conv(features, (size, size), strides=stride, padding=size // 2, use_bias=False),
        norm=nn.batch_norm(epsilon=1e-3),
        relu=nn.relu,
    )
