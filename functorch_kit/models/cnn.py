"""A small convolutional network, LeNet-sized."""

from __future__ import annotations

import dataclasses

import jax

from functorch_kit import nn
from functorch_kit.types import Model


@dataclasses.dataclass(frozen=True)
class CNNConfig:
    """A small convolutional network.

    Attributes:
        features: channels of each 3×3 convolution.
        dense: width of the hidden dense layer.
        outputs: size of the output.
        dropout: rate before the last layer; may be traced.

    Example:
        >>> CNNConfig().features
        (32, 64)
    """

    features: tuple[int, ...] = (32, 64)
    dense: int = 128
    outputs: int = 10
    dropout: float | jax.Array = 0.3


def cnn(config: CNNConfig) -> Model:
    """3×3 convolutions with ReLU, one 2×2 max pool, a dense layer with dropout, a dense head.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.cnn(models.CNNConfig())
        >>> spec = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
        >>> params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), spec))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        151306
    """
    parts = {}
    for index, width in enumerate(config.features):
        parts[f"conv_{index}"] = nn.conv(width, (3, 3))
        parts[f"relu_{index}"] = nn.relu
    return nn.serial(
        **parts,
        pool=nn.max_pool((2, 2)),
        flatten=nn.flatten(),
        dense=nn.dense(config.dense),
        relu=nn.relu,
        dropout=nn.dropout(config.dropout),
        head=nn.dense(config.outputs),
    )
