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
    apart: bool = True  # in evaluation examples do not see each other
    passes: int = 1  # how often it goes over the same parameters: the roundings of each add up

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


RANDOM = np.random.default_rng(5)


def _beside(layer: nn.Model, **given: np.ndarray) -> nn.Model:
    """A layer that is given the same arrays beside every x, floats in the dtype of x."""

    def whole(x: Any) -> dict[str, Any]:
        def like_x(value: np.ndarray):
            return jnp.asarray(value, x.dtype if value.dtype.kind == "f" else value.dtype)

        return {"x": x, **{name: like_x(value) for name, value in given.items()}}

    def apply(params: Any, model_state: Any, x: Any, *, key: Any = None, train: bool = False):
        return layer.apply(params, model_state, whole(x), key=key, train=train)

    return nn.Model(lambda key, x_spec: layer.init(key, whole(x_spec)), apply)


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
    "conv_transpose 1d": Case(nn.conv_transpose(3, (3,), strides=2), (2, 3, 2), (2, 6, 3)),
    "conv_transpose": Case(
        nn.conv_transpose(4, (2, 3), strides=(2, 1), padding=1, dilation=(2, 1), groups=2),
        (2, 3, 3, 2),
        (2, 5, 3, 4),
    ),
    "adaptive_avg_pool": Case(nn.adaptive_avg_pool((2, 3)), (2, 5, 3, 2), (2, 2, 3, 2)),
    "adaptive_max_pool": Case(nn.adaptive_max_pool((2, 3)), (2, 5, 6, 2), (2, 2, 3, 2)),
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
    "rms_norm": Case(nn.rms_norm(), (2, 3, 4), (2, 3, 4)),
    "instance_norm": Case(nn.instance_norm(), (2, 3, 2, 2), (2, 3, 2, 2)),
    "group_norm": Case(nn.group_norm(2), (2, 3, 3, 4), (2, 3, 3, 4)),
    "attention": Case(nn.attention(2), (2, 3, 4), (2, 3, 4)),
    "attention causal": Case(
        nn.attention(2, causal=True, use_bias=False, dropout=0.3), (2, 4, 6), (2, 4, 6), trains=True
    ),
    "position_embedding": Case(nn.position_embedding(5), (2, 3, 4), (2, 3, 4)),
    "attention grouped": Case(
        nn.attention(4, kv_heads=2, head_width=2, causal=True, window=2, rotary=100.0),
        (2, 4, 3),
        (2, 4, 3),
    ),
    "attention across, masked": Case(
        _beside(
            nn.attention(2, use_bias=False),
            context=RANDOM.standard_normal((1, 3, 5)),
            mask=np.array([[True, False, True]]),
        ),
        (1, 2, 4),
        (1, 2, 4),
    ),
    "attention in segments": Case(
        _beside(nn.attention(2), segments=np.array([[1, 1, 2, 2]], np.int32)), (1, 4, 4), (1, 4, 4)
    ),
    "rotary": Case(nn.lambda_(nn.rotary), (2, 2, 3, 4), (2, 2, 3, 4)),
    "dropout": Case(nn.dropout(0.4), (5, 4), (5, 4), trains=True),
    "stochastic_depth": Case(nn.stochastic_depth(0.4), (5, 2, 3), (5, 2, 3), trains=True),
    "rnn": Case(nn.rnn(3), (2, 3, 2), (2, 3, 3)),
    "gru": Case(nn.gru(3, output="last", dropout=0.2, unroll=2), (2, 3, 2), (2, 3)),
    "lstm": Case(nn.lstm(2, dropout=0.3), (2, 3, 2), (2, 3, 2), trains=True),
    "bidirectional with lengths": Case(
        _beside(
            nn.bidirectional(nn.gru(2, use_bias=False), nn.lstm(2, reverse=True)),
            lengths=np.array([2, 4, 0], np.int32),
        ),
        (3, 4, 2),
        (3, 4, 4),
        apart=False,
    ),
    "recurrent, stateful": Case(nn.lstm(2, stateful=True), (2, 2, 2), (2, 2, 2), apart=False),
    "flatten": Case(nn.flatten(), (2, 3, 4), (2, 12)),
    "leaky_relu": Case(nn.leaky_relu(0.1), (3, 4), (3, 4)),
    "residual": Case(nn.residual(nn.dense(4), nn.dense(4)), (3, 5), (3, 4)),
    "repeat": Case(
        nn.repeat(nn.serial(dense=nn.dense(3), act=nn.tanh, drop=nn.dropout(0.3)), 3, remat=True),
        (2, 3),
        (2, 3),
        trains=True,
    ),
    "repeat with state": Case(nn.repeat(nn.batch_norm(), 2), (3, 2, 2), (3, 2, 2), trains=True),
    "stack": Case(nn.stack(nn.dense(2), nn.dense(3)), (2, 4), (2, 3)),
    "remat": Case(nn.remat(nn.serial(nn.dense(3), nn.tanh)), (2, 4), (2, 3)),
    "graph": Case(
        nn.graph(
            lambda part, x: part("gate", x) * part("value", part("gate", x)),
            gate=nn.dense(3),
            value=nn.dense(3),
        ),
        (2, 3),
        (2, 3),
    ),
    "branch": Case(
        nn.branch(nn.dense(3), nn.serial(nn.dense(3), nn.tanh), choose=lambda x: x.shape[0] > 0),
        (2, 4),
        (2, 3),
    ),
    "loop": Case(nn.loop(nn.serial(nn.dense(3), nn.tanh), 3), (2, 3), (2, 3)),
    "loop that goes on": Case(
        nn.loop(nn.dense(3), 5, go_on=lambda y: jnp.max(jnp.abs(y)) < 4),
        (2, 3),
        (2, 3),
        apart=False,
        passes=5,
    ),
    "custom_gradient": Case(
        nn.custom_gradient(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, s: (s * jnp.cos(x),)),
        (3, 4),
        (3, 4),
    ),
    "activations": Case(
        nn.serial(nn.relu, nn.gelu, nn.elu, nn.silu, nn.softplus, nn.tanh, nn.sigmoid, nn.identity),
        (3, 4),
        (3, 4),
    ),
    "softmax": Case(nn.serial(nn.softmax, nn.log_softmax), (3, 4), (3, 4)),
}
