"""AlexNet: Krizhevsky, Sutskever and Hinton, 2012, on one device (2014), as torchvision has it."""

from __future__ import annotations

import dataclasses

import jax

from functorch_kit import nn
from functorch_kit.types import Model

_FEATURES = (64, 192, 384, 256, 256)
_KERNELS = (11, 5, 3, 3, 3)
_POOLED = (0, 1, 4)  # convolutions that a pool follows


@dataclasses.dataclass(frozen=True)
class AlexNetConfig:
    """An AlexNet.

    Attributes:
        outputs: size of the output.
        dropout: rate before each of the two hidden dense layers; may be traced.
        dense: width of those.

    Example:
        >>> AlexNetConfig().outputs
        1000
    """

    outputs: int = 1000
    dropout: float | jax.Array = 0.5
    dense: int = 4096


def alexnet(config: AlexNetConfig) -> Model:
    """Five convolutions, three of them pooled, and three dense layers.

    Parameters are addressed like ``features/conv_0/kernel`` and ``classifier/dense_0/kernel``.

    Args:
        config: see ``AlexNetConfig``.

    Returns:
        A Model from images (batch, height, width, channels), 63 pixels or more, to (batch,
        outputs).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.alexnet(models.AlexNetConfig())
        >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        61100840
    """
    parts = {}
    for index, (width, size) in enumerate(zip(_FEATURES, _KERNELS, strict=True)):
        # The first has stride 4 and is padded by 2, as torchvision's.
        strides, padding = (4, 2) if index == 0 else (1, size // 2)
        parts[f"conv_{index}"] = nn.conv(width, (size, size), strides=strides, padding=padding)
        parts[f"relu_{index}"] = nn.relu
        if index in _POOLED:
            parts[f"pool_{index}"] = nn.max_pool((3, 3), strides=(2, 2))
    return nn.serial(
        features=nn.serial(**parts),
        pool=nn.adaptive_avg_pool((6, 6)),
        flatten=nn.flatten(),
        classifier=classifier(config.dense, config.outputs, config.dropout, drops_first=True),
    )


def classifier(width: int, outputs: int, dropout: float | jax.Array, *, drops_first: bool) -> Model:
    """Two hidden dense layers with ReLU and dropout, and a third: the head of AlexNet and VGG.

    Args:
        width: of the hidden layers.
        outputs: size of the output.
        dropout: rate; may be traced.
        drops_first: whether dropout stands before each hidden layer, else behind.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> head = classifier(8, 3, 0.5, drops_first=False)
        >>> params, _ = head.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> sorted(params)
        ['dense_0', 'dense_1', 'head']
    """
    parts = {}
    for index in range(2):
        drop = {f"dropout_{index}": nn.dropout(dropout)}
        hidden = {f"dense_{index}": nn.dense(width), f"relu_{index}": nn.relu}
        parts |= drop | hidden if drops_first else hidden | drop
    return nn.serial(**parts, head=nn.dense(outputs))
