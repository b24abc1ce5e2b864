"""Layers against PyTorch's numbers, forward and gradient (N2 of the test plan).

The numbers were made once by ``make_layers.py``; PyTorch is not needed here. They say what PyTorch
computed, so they change when a case is added, and not to make a test pass.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.models.transformer import pre_norm_block

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FILE = Path(__file__).with_name("layers.npz")
BOUND = 1e-10
TO_THE_END = ((0, 1), (0, 1))

exact_gelu = nn.lambda_(functools.partial(jax.nn.gelu, approximate=False))
LAYERS = {
    "conv 1d": nn.conv(3, (3,), strides=2, padding=1),
    "conv 2d": nn.conv(4, (3, 2), strides=(2, 1), padding=[(1, 1), (0, 0)]),
    "conv 2d in groups": nn.conv(4, (2, 2), padding="VALID", groups=2, use_bias=False),
    "conv 2d dilated": nn.conv(3, (2, 2), padding="VALID", dilation=(2, 1)),
    "conv 3d": nn.conv(2, (2, 2, 2), strides=(1, 2, 1), padding="VALID"),
    "conv_transpose 1d": nn.conv_transpose(3, (3,), strides=2, padding=1, output_padding=1),
    "conv_transpose 2d": nn.conv_transpose(3, (2, 3), strides=(2, 1), padding=[(0, 0), (1, 1)]),
    "conv_transpose 2d in groups": nn.conv_transpose(
        6, (2, 2), padding="VALID", groups=2, dilation=2
    ),
    "conv_transpose 3d": nn.conv_transpose(2, (2, 2, 2), strides=2, padding="VALID"),
    "max_pool 1d": nn.max_pool((3,), strides=(2,), padding=1),
    "max_pool 2d": nn.max_pool((2, 2)),
    "max_pool 2d to the end": nn.max_pool((3, 3), strides=(2, 2), padding=TO_THE_END),
    "max_pool 3d": nn.max_pool((2, 2, 2), strides=(1, 1, 1)),
    "avg_pool 1d": nn.avg_pool((2,)),
    "avg_pool 2d": nn.avg_pool((3, 3), strides=(2, 2), padding=1),
    "avg_pool 3d": nn.avg_pool((2, 2, 2), strides=(1, 1, 1)),
    "adaptive_avg_pool 1d": nn.adaptive_avg_pool((3,)),
    "adaptive_avg_pool 2d": nn.adaptive_avg_pool((2, 5)),
    "adaptive_avg_pool 3d": nn.adaptive_avg_pool((2, 1, 2)),
    "adaptive_max_pool 1d": nn.adaptive_max_pool((3,)),
    "adaptive_max_pool 2d": nn.adaptive_max_pool((2, 5)),
    "adaptive_max_pool 3d": nn.adaptive_max_pool((2, 1, 2)),
    "global_avg_pool": nn.global_avg_pool(),
    "global_max_pool": nn.global_max_pool(),
    "group_norm": nn.group_norm(2),
    "instance_norm": nn.instance_norm(),
    "batch_norm": nn.batch_norm(),
    "batch_norm in training": nn.batch_norm(),
    "dense": nn.dense(3),
    "layer_norm": nn.layer_norm(),
    "rms_norm": nn.rms_norm(),
    "embedding": nn.embedding(5, 3),
    "relu": nn.relu,
    "gelu": nn.gelu,
    "elu": nn.elu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "leaky_relu": nn.leaky_relu(0.1),
    **{
        name + ending: layer
        for name, make in (("rnn", nn.rnn), ("gru", nn.gru), ("lstm", nn.lstm))
        for ending, layer in (
            ("", make(3)),
            (" in both directions", nn.bidirectional(make(3), make(3, reverse=True))),
        )
    },
    "attention": nn.attention(2),
    "attention causal": nn.attention(2, causal=True),
    "attention across": nn.attention(2),
    "attention in a window": nn.attention(2, causal=True, window=2),
    "attention in segments": nn.attention(2),
    "attention grouped and rotary": nn.attention(
        4, kv_heads=2, head_width=2, causal=True, rotary=10_000.0
    ),
    "block": pre_norm_block(
        nn.attention(2),
        nn.serial(up=nn.dense(8), gelu=exact_gelu, down=nn.dense(6)),
        norm=nn.layer_norm,
    ),
}


@functools.cache
def _recorded() -> dict[str, dict[str, np.ndarray]]:
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FILE) as file:
        for key in file.files:
            name, _, entry = key.partition("|")
            if entry:
                cases.setdefault(name, {})[entry] = file[key]
    return cases


def _tree(case: dict[str, np.ndarray], branch: str) -> Any:
    """``params/query/kernel`` as ``{"query": {"kernel": …}}``."""
    tree: dict[str, Any] = {}
    for path, value in case.items():
        first, *names = path.split("/")
        if first == branch and names:
            at = tree
            for name in names[:-1]:
                at = at.setdefault(name, {})
            at[names[-1]] = jnp.asarray(value)
    return tree


def _assert_near(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_state_are_those_of_pytorch(name: str, x64):
    layer, case = LAYERS[name], _recorded()[name]
    params, state, inputs = (_tree(case, branch) for branch in ("params", "state", "x"))
    train = name.endswith("in training")
    floats = {key: x for key, x in inputs.items() if jnp.issubdtype(x.dtype, jnp.floating)}

    def apply(params, floats):
        x = inputs | floats
        x = x["x"] if len(x) == 1 else x
        return layer.apply(params, state or (), x, train=train)

    @jax.jit
    def run(params, floats):
        y, back, after = jax.vjp(apply, params, floats, has_aux=True)
        return y, after, back(jnp.asarray(case["direction"]))

    y, after, (by_params, by_x) = run(params, floats)
    _assert_near(y, case["y"])
    _assert_near(after or {}, _tree(case, "state_after") or state)
    _assert_near(by_params, _tree(case, "gradient"))
    _assert_near(by_x, _tree(case, "x_gradient"))


def test_every_recorded_layer_is_tried_and_its_parameters_are_all_there_are(x64):
    assert _recorded().keys() == LAYERS.keys()
    for name, layer in LAYERS.items():
        case = _recorded()[name]
        inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _tree(case, "x"))
        x = inputs["x"] if len(inputs) == 1 else inputs
        made, _ = jax.eval_shape(lambda x=x, layer=layer: layer.init(jax.random.key(0), x))
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, _tree(case, "params"))


def test_the_golden_files_are_small():
    assert sum(file.stat().st_size for file in FILE.parent.glob("*.npz")) < 1_000_000
