"""What PyTorch computes for small layers, forward and gradient, in float64: ``layers.npz``.

Run once, where PyTorch is installed: ``python tests/golden/make_layers.py``. The test needs none.
Arrays are in our layout (channels last, kernels as ``functorch_kit.nn`` has them).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden import torch_layouts as layouts

HERE = Path(__file__).parent
Record = dict[str, np.ndarray]


def record(
    torch: Any,
    module: Any,
    inputs: dict[str, Any],
    run: Callable[[dict[str, Any]], Any],
    layout: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    channels_last: bool = False,
) -> Record:
    """Inputs, parameters, output and the gradients of the output's product with a direction."""

    def ours(tensor: Any) -> np.ndarray:
        moved = tensor.detach().movedim(1, -1) if channels_last else tensor.detach()
        return moved.numpy().copy()

    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter)
    floats = [name for name, tensor in inputs.items() if tensor.is_floating_point()]
    for name in floats:
        inputs[name].requires_grad_()
    y = run(inputs)
    direction = torch.randn_like(y)
    (y * direction).sum().backward()
    named = dict(module.named_parameters())
    made = {f"x/{name}": ours(tensor) for name, tensor in inputs.items()}
    made |= {"y": ours(y), "direction": ours(direction)}
    made |= {f"x_gradient/{name}": ours(inputs[name].grad) for name in floats}
    values = layout({name: tensor.detach() for name, tensor in named.items()})
    slopes = layout({name: tensor.grad for name, tensor in named.items()})
    made |= {f"params/{name}": tensor.numpy().copy() for name, tensor in values.items()}
    return made | {f"gradient/{name}": tensor.numpy().copy() for name, tensor in slopes.items()}


def images(torch: Any) -> dict[str, Record]:
    """Convolutions, pools and norms over channels."""
    nn, made = torch.nn, {}

    def one(name: str, module: Any, shape: tuple[int, ...], layout: Any = lambda p: {}) -> None:
        x = torch.randn(shape)
        made[name] = record(
            torch, module, {"x": x}, lambda i: module(i["x"]), layout, channels_last=True
        )

    one("conv 1d", nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 6), layouts.conv)
    one(
        "conv 2d",
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
        (2, 2, 5, 4),
        layouts.conv,
    )
    one("conv 2d in groups", nn.Conv2d(4, 4, 2, groups=2, bias=False), (1, 4, 3, 3), layouts.conv)
    one("conv 2d dilated", nn.Conv2d(2, 3, 2, dilation=(2, 1)), (1, 2, 4, 3), layouts.conv)
    one("conv 3d", nn.Conv3d(2, 2, 2, stride=(1, 2, 1)), (1, 2, 3, 4, 2), layouts.conv)
    for name, module, shape, groups in (
        ("1d", nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 4), 1),
        ("2d", nn.ConvTranspose2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 1)), (1, 2, 3, 3), 1),
        ("2d in groups", nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2), (1, 4, 2, 2), 2),
        ("3d", nn.ConvTranspose3d(2, 2, 2, stride=2), (1, 2, 2, 1, 2), 1),
    ):
        layout = lambda p, groups=groups: layouts.conv_transpose(p, groups)  # noqa: E731
        one(f"conv_transpose {name}", module, shape, layout)
    one("max_pool 1d", nn.MaxPool1d(3, stride=2, padding=1), (2, 2, 7))
    one("max_pool 2d", nn.MaxPool2d(2), (1, 2, 4, 4))
    one("max_pool 2d to the end", nn.MaxPool2d(3, stride=2, ceil_mode=True), (1, 2, 6, 5))
    one("max_pool 3d", nn.MaxPool3d(2, stride=1), (1, 2, 3, 2, 3))
    one("avg_pool 1d", nn.AvgPool1d(2), (2, 2, 6))
    pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    one("avg_pool 2d", pool, (1, 2, 5, 4))
    one("avg_pool 3d", nn.AvgPool3d(2, stride=1), (1, 1, 3, 2, 3))
    one("adaptive_avg_pool 1d", nn.AdaptiveAvgPool1d(3), (2, 2, 7))
    one("adaptive_avg_pool 2d", nn.AdaptiveAvgPool2d((2, 5)), (1, 2, 4, 3))
    one("adaptive_avg_pool 3d", nn.AdaptiveAvgPool3d((2, 1, 2)), (1, 1, 3, 2, 5))
    one("adaptive_max_pool 1d", nn.AdaptiveMaxPool1d(3), (2, 2, 7))
    one("adaptive_max_pool 2d", nn.AdaptiveMaxPool2d((2, 5)), (1, 2, 4, 3))
    one("adaptive_max_pool 3d", nn.AdaptiveMaxPool3d((2, 1, 2)), (1, 1, 3, 2, 5))
    one("global_avg_pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 2, 3, 2))
    one("global_max_pool", nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), (2, 2, 3, 2))
    one("group_norm", nn.GroupNorm(2, 4), (2, 4, 3), layouts.norm)
    one("instance_norm", nn.InstanceNorm2d(3, affine=True), (2, 3, 2, 3), layouts.norm)
    for name, is_training in (("batch_norm", False), ("batch_norm in training", True)):
        norm = nn.BatchNorm2d(3).train(is_training)
        norm.running_mean, norm.running_var = torch.randn(3), torch.rand(3) + 0.5
        before = {"mean": norm.running_mean.clone(), "var": norm.running_var.clone()}
        one(name, norm, (2, 3, 2, 2), layouts.norm)
        after = {"mean": norm.running_mean, "var": norm.running_var}
        made[name] |= {f"state/{key}": value.numpy() for key, value in before.items()}
        made[name] |= {f"state_after/{key}": value.numpy().copy() for key, value in after.items()}
    return made


def features(torch: Any) -> dict[str, Record]:
    """What works on the last axis, and embeddings."""
    nn, made = torch.nn, {}

    def one(name: str, module: Any, x: Any, layout: Any = lambda p: {}) -> None:
        made[name] = record(torch, module, {"x": x}, lambda i: module(i["x"]), layout)

    one("dense", nn.Linear(4, 3), torch.randn(2, 3, 4), layouts.dense)
    one("layer_norm", nn.LayerNorm(4), torch.randn(2, 3, 4), layouts.norm)
    one("rms_norm", nn.RMSNorm(4, eps=1e-6), torch.randn(2, 3, 4), layouts.norm)
    one("embedding", nn.Embedding(5, 3), torch.tensor([[0, 4, 4], [1, 0, 2]]),
        lambda p: {"embedding": p["weight"]})  # fmt: skip
    for name, module in (
        ("relu", nn.ReLU()), ("gelu", nn.GELU(approximate="tanh")), ("elu", nn.ELU()),
        ("silu", nn.SiLU()), ("softplus", nn.Softplus()), ("tanh", nn.Tanh()),
        ("sigmoid", nn.Sigmoid()), ("softmax", nn.Softmax(-1)),
        ("log_softmax", nn.LogSoftmax(-1)), ("leaky_relu", nn.LeakyReLU(0.1)),
    ):  # fmt: skip
        one(name, module, torch.randn(3, 4))
    return made


def sequences(torch: Any) -> dict[str, Record]:
    """Recurrent layers, with and without lengths, in one direction and in both."""
    nn, made = torch.nn, {}
    pack = torch.nn.utils.rnn.pack_padded_sequence
    pad = torch.nn.utils.rnn.pad_packed_sequence
    lengths = torch.tensor([2, 4, 1])
    for name, kind in (("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)):
        whole = kind(2, 3, batch_first=True)
        made[name] = record(
            torch, whole, {"x": torch.randn(2, 4, 2)}, lambda i, m=whole: m(i["x"])[0],
            layouts.recurrent,
        )  # fmt: skip
        both = kind(2, 3, batch_first=True, bidirectional=True)

        def padded(i: dict[str, Any], m: Any = both) -> Any:
            packed = pack(i["x"], i["lengths"], batch_first=True, enforce_sorted=False)
            return pad(m(packed)[0], batch_first=True)[0]

        inputs = {"x": torch.randn(3, 4, 2), "lengths": lengths}
        made[f"{name} in both directions"] = record(torch, both, inputs, padded, layouts.recurrent)
    return made


def attentions(torch: Any) -> dict[str, Record]:
    """Attention with its masks; grouped queries, windows and rotary positions by the definition."""
    nn, made = torch.nn, {}
    length, width = 4, 6
    order = torch.arange(length)
    back = order[:, None] - order[None]
    segments = torch.tensor([[1, 1, 2, 2], [1, 2, 2, 2]])

    def one(name: str, inputs: dict[str, Any], **options: Any) -> None:
        other = {"kdim": 3, "vdim": 3} if "context" in inputs else {}
        module = nn.MultiheadAttention(width, 2, batch_first=True, **other)

        def run(i: dict[str, Any]) -> Any:
            read = i.get("context", i["x"])
            masked = {"key_padding_mask": ~i["mask"]} if "mask" in i else {}
            return module(i["x"], read, read, need_weights=False, **masked, **options)[0]

        made[name] = record(torch, module, inputs, run, layouts.attention)

    def x() -> Any:
        return torch.randn(2, length, width)

    mask = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])
    one("attention", {"x": x()})
    one("attention causal", {"x": x()}, attn_mask=back < 0)
    one("attention across", {"x": x(), "context": torch.randn(2, 5, 3), "mask": mask})
    one("attention in a window", {"x": x()}, attn_mask=(back < 0) | (back >= 2))
    apart = (segments[:, :, None] != segments[:, None, :]).repeat_interleave(2, 0)
    one("attention in segments", {"x": x()}, attn_mask=apart)
    made["attention in segments"]["x/segments"] = segments.numpy()

    parts = {"query": 8, "key": 4, "value": 4}
    module = nn.ModuleDict({name: nn.Linear(width, size) for name, size in parts.items()})
    module["out"] = nn.Linear(8, width)

    def turned(heads: Any) -> Any:
        """Pairs as complex numbers, turned by a factor of absolute value 1."""
        first, second = heads.chunk(2, -1)
        angle = order[:, None] * 10_000.0 ** (-torch.arange(first.shape[-1]) / first.shape[-1])
        pairs = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([pairs.real, pairs.imag], -1)

    def grouped(i: dict[str, Any]) -> Any:
        query, key, value = (
            module[name](i["x"]).unflatten(-1, (-1, 2)).transpose(1, 2) for name in parts
        )
        y = nn.functional.scaled_dot_product_attention(
            turned(query), turned(key), value, is_causal=True, enable_gqa=True
        )
        return module["out"](y.transpose(1, 2).flatten(2))

    layout = lambda p: layouts.several(p, *parts, "out")  # noqa: E731
    made["attention grouped and rotary"] = record(torch, module, {"x": x()}, grouped, layout)
    block = nn.TransformerEncoderLayer(
        width, 2, 8, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    made["block"] = record(torch, block, {"x": x()}, lambda i: block(i["x"]), layouts.encoder_layer)
    return made


def main() -> None:
    """Write the file."""
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    made = images(torch) | features(torch) | sequences(torch) | attentions(torch)
    arrays = {f"{name}|{key}": value for name, each in made.items() for key, value in each.items()}
    arrays["torch"] = np.array(torch.__version__)
    np.savez_compressed(HERE / "layers.npz", **arrays)  # pyright: ignore[reportArgumentType]
    print(f"{len(made)} layers, {(HERE / 'layers.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
