"""One small instance of every layer, for the properties that all of them must have."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import nn


class Case(NamedTuple):
    """A layer, the shape of its input, the shape that its documentation declares for the output."""

    layer: nn.Model
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    trains: bool = False  # training differs from evaluation

    def arrays(self, dtype: Any = np.float32) -> tuple[Any, Any, jax.Array]:
        """Parameters and model_state away from their special first values, input without ties.

        NumPy's numbers: JAX would compile a generator for every shape.
        """
        random = np.random.default_rng(7)
        params, state = self.specs(dtype)
        params = jax.tree.map(lambda leaf: _normal(random, leaf.shape, dtype), params)
        state = jax.tree.map(lambda leaf: np.abs(_normal(random, leaf.shape, dtype)) + 0.5, state)
        return params, state, _normal(random, self.x_shape, dtype)

    def specs(self, dtype: Any) -> tuple[Any, Any]:
        """Shapes of parameters and model_state."""
        spec = jax.ShapeDtypeStruct(self.x_shape, dtype)
        return jax.eval_shape(lambda: self.layer.init(jax.random.key(0), spec))


def _normal(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return jnp.asarray(random.standard_normal(shape), dtype)


CASES = {
    "dense": Case(nn.dense(4), (3, 5), (3, 4)),
    "dense on a sequence": Case(nn.dense(4), (2, 3, 5), (2, 3, 4)),
    "dense of one example": Case(nn.dense(2), (5,), (2,)),
    "dense without bias": Case(nn.dense(4, use_bias=False), (3, 5), (3, 4)),
    "conv 1d": Case(nn.conv(3, (3,), strides=2), (2, 7, 2), (2, 4, 3)),
    "conv by patches": Case(nn.conv(3, (3, 2), method="patches"), (2, 4, 5, 2), (2, 4, 5, 3)),
    "conv by library": Case(nn.conv(3, (3, 2), method="library"), (2, 4, 5, 2), (2, 4, 5, 3)),
    "conv in groups": Case(
        nn.conv(4, (2, 2), groups=2, padding="VALID"), (2, 3, 3, 4), (2, 2, 2, 4)
    ),
    "conv 3d": Case(
        nn.conv(2, (2, 2, 2), padding=1, dilation=2, use_bias=False),
        (1, 3, 3, 3, 2),
        (1, 3, 3, 3, 2),
    ),
    "max_pool tiled": Case(nn.max_pool((2, 2)), (2, 4, 4, 2), (2, 2, 2, 2)),
    "max_pool overlapping": Case(
        nn.max_pool((3, 2), strides=(1, 2), padding="SAME"), (2, 4, 5, 2), (2, 4, 3, 2)
    ),
    "avg_pool tiled": Case(nn.avg_pool((2,)), (2, 6, 2), (2, 3, 2)),
    "avg_pool overlapping": Case(nn.avg_pool((3,), strides=(2,), padding=1), (2, 6, 2), (2, 3, 2)),
    "global_avg_pool": Case(nn.global_avg_pool(), (2, 3, 4, 2), (2, 2)),
    "global_max_pool": Case(nn.global_max_pool(), (2, 3, 4, 2), (2, 2)),
    "batch_norm": Case(nn.batch_norm(), (4, 3, 2), (4, 3, 2), trains=True),
    "batch_norm flat": Case(nn.batch_norm(), (6, 3), (6, 3), trains=True),
    "layer_norm": Case(nn.layer_norm(), (3, 5), (3, 5)),
    "layer_norm without bias": Case(nn.layer_norm(use_bias=False), (2, 3, 5), (2, 3, 5)),
    "group_norm": Case(nn.group_norm(2), (2, 3, 3, 4), (2, 3, 3, 4)),
    "attention": Case(nn.attention(2), (2, 3, 4), (2, 3, 4)),
    "attention causal": Case(
        nn.attention(2, causal=True, use_bias=False, dropout=0.3), (2, 4, 6), (2, 4, 6), trains=True
    ),
    "position_embedding": Case(nn.position_embedding(5), (2, 3, 4), (2, 3, 4)),
    "dropout": Case(nn.dropout(0.4), (5, 4), (5, 4), trains=True),
    "flatten": Case(nn.flatten(), (2, 3, 4), (2, 12)),
    "leaky_relu": Case(nn.leaky_relu(0.1), (3, 4), (3, 4)),
    "residual": Case(nn.residual(nn.dense(4), nn.dense(4)), (3, 5), (3, 4)),
    "activations": Case(
        nn.serial(nn.relu, nn.gelu, nn.elu, nn.silu, nn.softplus, nn.tanh, nn.sigmoid, nn.identity),
        (3, 4),
        (3, 4),
    ),
    "softmax": Case(nn.serial(nn.softmax, nn.log_softmax), (3, 4), (3, 4)),
}
