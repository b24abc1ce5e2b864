"""The multilayer perceptron."""

from __future__ import annotations

import dataclasses

import jax

from functorch_kit import nn
from functorch_kit.types import Model


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """A multilayer perceptron.

    Attributes:
        hidden: width of each hidden layer.
        outputs: size of the output.
        dropout: rate after each hidden layer; may be traced.
        use_bias: whether the dense layers have biases; the lecture's two-layer net has none.

    Example:
        >>> MLPConfig(hidden=(64,)).outputs
        10
    """

    hidden: tuple[int, ...] = (128, 128)
    outputs: int = 10
    dropout: float | jax.Array = 0.0
    use_bias: bool = True


def mlp(config: MLPConfig) -> Model:
    """Flatten, then dense layers with ReLU (and dropout) between them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.mlp(models.MLPConfig(hidden=(16,), outputs=3))
        >>> x_spec = jax.ShapeDtypeStruct((2, 8, 8), jnp.float32)
        >>> params, state = model.init(jax.random.key(0), x_spec)
        >>> sorted(params), params["hidden_0"]["kernel"].shape
        (['head', 'hidden_0'], (64, 16))
    """
    parts = {"flatten": nn.flatten()}
    for index, width in enumerate(config.hidden):
        parts[f"hidden_{index}"] = nn.dense(width, use_bias=config.use_bias)
        parts[f"relu_{index}"] = nn.relu
        parts[f"dropout_{index}"] = nn.dropout(config.dropout)
    return nn.serial(**parts, head=nn.dense(config.outputs, use_bias=config.use_bias))


@dataclasses.dataclass(frozen=True)
class TwoLayerConfig:
    """The two-layer net by which deep-learning software is introduced.

    Attributes:
        hidden: width of the hidden layer.
        outputs: size of the output.
        use_bias: whether the two layers have biases.

    Example:
        >>> TwoLayerConfig().hidden
        100
    """

    hidden: int = 100
    outputs: int = 10
    use_bias: bool = False


def two_layer(config: TwoLayerConfig) -> Model:
    """``max(x W1, 0) W2``: Stanford CS231n, lecture 8.

    Args:
        config: see ``TwoLayerConfig``.

    Returns:
        A Model from (batch, inputs) to (batch, outputs), with parameters ``hidden_0/kernel`` and
        ``head/kernel``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.two_layer(models.TwoLayerConfig())
        >>> x = jax.ShapeDtypeStruct((64, 1000), jnp.float32)
        >>> params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        101000
    """
    hidden = (config.hidden,)
    return mlp(MLPConfig(hidden=hidden, outputs=config.outputs, use_bias=config.use_bias))
