"""PyTorch's parameters as ours: transposed, regrouped, renamed; the same map takes gradients."""

from __future__ import annotations

from typing import Any

Tensors = dict[str, Any]


def dense(p: Tensors, name: str = "", to: str = "") -> Tensors:
    """``Linear``."""
    ours = {f"{to}kernel": p[f"{name}weight"].T}
    return ours | ({f"{to}bias": p[f"{name}bias"]} if f"{name}bias" in p else {})


def conv(p: Tensors) -> Tensors:
    """``Conv1d`` to ``Conv3d``: (out, in, *space) to (*space, in, out)."""
    weight = p["weight"]
    space = range(2, weight.ndim)
    ours = {"kernel": weight.permute(*space, 1, 0)}
    return ours | ({"bias": p["bias"]} if "bias" in p else {})


def conv_transpose(p: Tensors, groups: int) -> Tensors:
    """``ConvTranspose1d`` to ``3d``: (in, out / groups, *space) to (*space, in / groups, out)."""
    weight = p["weight"]
    each, space = weight.shape[0] // groups, weight.shape[2:]
    grouped = weight.reshape(groups, each, weight.shape[1], *space)
    axes = range(3, grouped.ndim)
    kernel = grouped.permute(*axes, 1, 0, 2).reshape(*space, each, -1)
    return {"kernel": kernel, "bias": p["bias"]}


def norm(p: Tensors, name: str = "", to: str = "") -> Tensors:
    """Any norm."""
    ours = {f"{to}scale": p[f"{name}weight"]}
    return ours | ({f"{to}bias": p[f"{name}bias"]} if f"{name}bias" in p else {})


def recurrent(p: Tensors) -> Tensors:
    """``RNN``, ``GRU`` or ``LSTM`` of one layer, in one direction or in both."""
    is_both = any(name.endswith("_reverse") for name in p)
    ours = {}
    for suffix, to in (("", "forward/" if is_both else ""), ("_reverse", "backward/")):
        for ending, part in (("ih", "input"), ("hh", "hidden")):
            if f"weight_{ending}_l0{suffix}" in p:
                ours[f"{to}{part}/kernel"] = p[f"weight_{ending}_l0{suffix}"].T
                ours[f"{to}{part}/bias"] = p[f"bias_{ending}_l0{suffix}"]
    return ours


def attention(p: Tensors, name: str = "", to: str = "") -> Tensors:
    """``MultiheadAttention``."""
    parts = ("query", "key", "value")
    if f"{name}in_proj_weight" in p:
        weights = p[f"{name}in_proj_weight"].chunk(3)
    else:
        weights = [p[f"{name}{part}_proj_weight"] for part in "qkv"]
    biases = p[f"{name}in_proj_bias"].chunk(3)
    ours = dense(p, f"{name}out_proj.", f"{to}out/")
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        ours |= {f"{to}{part}/kernel": weight.T, f"{to}{part}/bias": bias}
    return ours


def several(p: Tensors, *names: str) -> Tensors:
    """Linear layers side by side, under their own names."""
    ours = {}
    for name in names:
        ours |= dense(p, f"{name}.", f"{name}/")
    return ours


def encoder_layer(p: Tensors) -> Tensors:
    """``TransformerEncoderLayer``."""
    return (
        attention(p, "self_attn.", "attention/")
        | norm(p, "norm1.", "attention_norm/")
        | norm(p, "norm2.", "mlp_norm/")
        | dense(p, "linear1.", "mlp/up/")
        | dense(p, "linear2.", "mlp/down/")
    )
