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
from functorch_kit.nn.adaptive_pool import adaptive_avg_pool, adaptive_max_pool
from functorch_kit.nn.attention import attention
from functorch_kit.nn.beside import apart, together
from functorch_kit.nn.combinators import (
    apply_part,
    lambda_,
    output_spec,
    parallel,
    residual,
    serial,
)
from functorch_kit.nn.control import branch, loop
from functorch_kit.nn.conv import conv
from functorch_kit.nn.conv_transpose import conv_transpose
from functorch_kit.nn.dropout import dropout, stochastic_depth
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.gaussian import gaussian_sample, mean_and_log_variance
from functorch_kit.nn.gradients import custom_gradient, reverse_gradient, straight_through
from functorch_kit.nn.graph import Wires, graph
from functorch_kit.nn.linear import attend, dense, embedding, one_hot
from functorch_kit.nn.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from functorch_kit.nn.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from functorch_kit.nn.position import position_embedding, rotary
from functorch_kit.nn.recurrent import Cell, bidirectional, gru, lstm, recurrent, rnn
from functorch_kit.nn.repeat import remat, repeat, stack, stacked, unstacked
from functorch_kit.nn.scope import current_path, part_key, placed, scope, tag
from functorch_kit.nn.treatment import treated
from functorch_kit.types import Model

__all__ = [
    "Cell",
    "LayerError",
    "Model",
    "Wires",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "apart",
    "apply_part",
    "attend",
    "attention",
    "avg_pool",
    "batch_norm",
    "bidirectional",
    "branch",
    "conv",
    "conv_transpose",
    "current_path",
    "custom_gradient",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "gaussian_sample",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "graph",
    "group_norm",
    "gru",
    "identity",
    "instance_norm",
    "lambda_",
    "layer_norm",
    "leaky_relu",
    "log_softmax",
    "loop",
    "lstm",
    "max_pool",
    "mean_and_log_variance",
    "one_hot",
    "output_spec",
    "parallel",
    "part_key",
    "placed",
    "position_embedding",
    "recurrent",
    "relu",
    "remat",
    "repeat",
    "residual",
    "reverse_gradient",
    "rms_norm",
    "rnn",
    "rotary",
    "scope",
    "serial",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "stack",
    "stacked",
    "stochastic_depth",
    "straight_through",
    "tag",
    "tanh",
    "together",
    "treated",
    "unstacked",
]
