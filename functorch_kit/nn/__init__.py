"""Layers and combinators: Model values from plain arguments."""

from functorch_kit.nn.activations import (
    elu,
    flatten,
    gelu,
    identity,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from functorch_kit.nn.attention import attention, position_embedding
from functorch_kit.nn.combinators import (
    apply_part,
    lambda_,
    output_spec,
    parallel,
    residual,
    serial,
)
from functorch_kit.nn.conv import conv
from functorch_kit.nn.dropout import dropout
from functorch_kit.nn.gaussian import gaussian_sample, mean_and_log_variance
from functorch_kit.nn.linear import dense, embedding
from functorch_kit.nn.norm import batch_norm, group_norm, layer_norm
from functorch_kit.nn.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from functorch_kit.nn.scope import current_path, part_key, scope, tag
from functorch_kit.nn.treatment import treated
from functorch_kit.types import Model

__all__ = [
    "Model",
    "apply_part",
    "attention",
    "avg_pool",
    "batch_norm",
    "conv",
    "current_path",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "gaussian_sample",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "identity",
    "lambda_",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "max_pool",
    "mean_and_log_variance",
    "output_spec",
    "parallel",
    "part_key",
    "position_embedding",
    "relu",
    "residual",
    "scope",
    "serial",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tag",
    "tanh",
    "treated",
]
