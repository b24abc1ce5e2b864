"""The settings of every model that can be chosen by name.

Published sizes are choices of their own, with the settings of their kind at other defaults. What
follows from the data (classes, vocabulary, context) is no setting. Reading this loads no JAX.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from functorch_kit.config.settings import setting, setting_of

WIDTH = {"least": 1, "most": 65_536}
_SHARE = {"least": 0, "below": 1}
_PATCH = {"least": 1, "most": 1024}
_LAYERS = {"least": 1, "most": 1000}


class ImageModel:
    """Takes images (height, width, channels)."""


class TextModel:
    """Takes rows of tokens, and says which one follows each."""


class GPTModel(TextModel):
    """A transformer for text, made for a longest row."""

    heads: int
    kv_heads: int | None
    width: int
    position: str
    rotary_base: float
    mlp: str
    exact_gelu: bool


def _dropout(default: float, text: str = "share of the activations that training drops") -> Any:
    return setting(default, text, **_SHARE, traced=True, off=0.0)


@dataclasses.dataclass
class CNN(ImageModel):
    """3×3 convolutions, one 2×2 max pool, a dense layer with dropout, a dense head."""

    features: tuple[int, ...] = setting((32, 64), "channels of each convolution", **WIDTH)
    dense: int = setting(128, "width of the dense layer", **WIDTH)
    dropout: float = _dropout(0.3)


@dataclasses.dataclass
class MLP:
    """Dense layers with ReLU."""

    hidden: tuple[int, ...] = setting(
        (128, 128), "width of each hidden layer; [] for a linear model", fewest=0, **WIDTH
    )
    dropout: float = _dropout(0.0)
    use_bias: bool = setting(True, "whether the dense layers have biases")


@dataclasses.dataclass
class AlexNet(ImageModel):
    """AlexNet, for images of 63×63 and more."""

    dropout: float = _dropout(0.5)
    dense: int = setting(4096, "width of the two hidden dense layers", **WIDTH)


@dataclasses.dataclass
class VGG11(ImageModel):
    """A VGG of 11 layers, for images of 32×32 and more."""

    dropout: float = _dropout(0.5)
    use_norm: bool = setting(False, "whether a batch norm follows each convolution")
    dense: int = setting(4096, "width of the two hidden dense layers", **WIDTH)


@dataclasses.dataclass
class Inception(ImageModel):
    """Inception-V1, which is GoogLeNet, for images of 32×32 and more."""

    dropout: float = _dropout(0.2)
    transform_input: bool = setting(
        False, "whether images normalised as for the others are brought to -1 to 1"
    )


@dataclasses.dataclass
class ResNet18(ImageModel):
    """A residual network of 18 layers with batch norm, for images."""

    stem: str = setting(
        "imagenet",
        "first layers: 7×7 with stride 2 and a pool, or one 3×3 for small images",
        choices=("imagenet", "cifar"),
    )
    width: int = setting(64, "channels of the first stage, doubled by each of the others", **WIDTH)
    is_preactivation: bool = setting(
        False, "whether norm and ReLU stand in front of each convolution"
    )


@dataclasses.dataclass
class ViT(ImageModel):
    """A vision transformer; its patches have to divide the images."""

    layers: int = setting(12, "number of blocks", **_LAYERS)
    heads: int = setting(12, "attention heads; must divide the width", **WIDTH)
    width: int = setting(768, "size of a patch's vector", **WIDTH)
    hidden: int | None = setting(None, "width inside the MLP; null: 4 * model.width", **WIDTH)
    patch: int = setting(16, "side of a patch in pixels", **_PATCH)
    dropout: float = _dropout(0.0)
    epsilon: float = setting(1e-6, "added to the variance by norms", above=0, most=1)


@dataclasses.dataclass
class Mixer(ImageModel):
    """An MLP-Mixer; its patches have to divide the images."""

    layers: int = setting(8, "number of blocks", **_LAYERS)
    width: int = setting(512, "size of a patch's vector", **WIDTH)
    patch: int = setting(16, "side of a patch in pixels", **_PATCH)
    token_hidden: int = setting(256, "width inside the MLP that mixes patches", **WIDTH)
    channel_hidden: int = setting(2048, "width inside the MLP that mixes channels", **WIDTH)
    dropout: float = _dropout(0.0)


@dataclasses.dataclass
class GPTNano(GPTModel):
    """A small GPT for text; the defaults are nanoGPT's recipe for one CPU."""

    layers: int = setting(4, "number of blocks", **_LAYERS)
    heads: int = setting(4, "attention heads; must divide the width", **WIDTH)
    width: int = setting(128, "size of a position's vector", **WIDTH)
    hidden: int | None = setting(None, "width inside the MLP; null: 4 * model.width", **WIDTH)
    dropout: float = _dropout(0.0)
    use_bias: bool = setting(False, "whether dense layers and layer norms have biases")
    is_tied: bool = setting(True, "whether the head is the token embedding, transposed")
    norm: str = setting("layer", "what blocks begin with", choices=("layer", "rms"))
    position: str = setting(
        "learned", "a table of positions, or queries and keys turned", choices=("learned", "rotary")
    )
    mlp: str = setting("gelu", "the MLP of a block", choices=("gelu", "relu_squared", "swiglu"))
    qk_norm: bool = setting(False, "whether queries and keys are normalised")
    ending: str = setting(
        "scaled", "how the last matrix of each half of a block begins", choices=("scaled", "zero")
    )
    exact_gelu: bool = setting(True, "whether GELU is by the error function, else by tanh")
    rotary_base: float = setting(1e4, "of the angles of rotary positions", above=1, most=1e9)
    kv_heads: int | None = setting(
        None, "heads that are read; null: as many as read; must divide model.heads", **WIDTH
    )
    epsilon: float | None = setting(
        None, "added to the variance by norms; null: 1e-5, of rms 1e-6", above=0, most=1
    )


@dataclasses.dataclass
class CharRNN(TextModel):
    """A character-level LSTM, for text."""

    layers: int = setting(2, "number of LSTMs", **_LAYERS)
    width: int = setting(128, "of each", **WIDTH)
    dropout: float = _dropout(0.0)
    embedding: int | None = setting(
        None, "size of a character's vector; null: one entry for each character", **WIDTH
    )


def _sized(kind: type, name: str, text: str, **defaults: Any) -> type:
    """The settings of a kind at other defaults."""
    hints = typing.get_type_hints(kind)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        default = defaults.pop(field.name, field.default)
        metadata = {"setting": setting_of(field)}
        fields.append((field.name, hints[field.name], dataclasses.field(
            default=default, metadata=metadata
        )))  # fmt: skip
    if defaults:
        raise TypeError(f"{kind.__name__} has no {', '.join(defaults)}")
    made = dataclasses.make_dataclass(name, fields, bases=kind.__bases__)
    made.__doc__, made.__module__ = text, __name__
    return made


_GPT2 = {"use_bias": True, "exact_gelu": False}
_LLAMA = {
    "is_tied": False, "norm": "rms", "position": "rotary", "mlp": "swiglu", "epsilon": 1e-5,
}  # fmt: skip

MODELS: dict[str, type] = {
    "cnn": CNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    **{
        f"resnet{depth}": _sized(
            ResNet18,
            f"ResNet{depth}",
            f"A residual network of {depth} layers with batch norm, for images.",
        )
        for depth in (34, 50, 101, 152, 200)
    },
    "alexnet": AlexNet,
    "vgg11": VGG11,
    **{
        f"vgg{depth}": _sized(
            VGG11, f"VGG{depth}", f"A VGG of {depth} layers, for images of 32×32 and more."
        )
        for depth in (13, 16, 19)
    },
    "inception": Inception,
    **{
        name: _sized(ViT, name.replace("vit_", "ViT"), text, **sizes)
        for name, text, sizes in (
            ("vit_ti16", "ViT-Ti/16.", {"heads": 3, "width": 192}),
            ("vit_s16", "ViT-S/16.", {"heads": 6, "width": 384}),
            ("vit_b32", "ViT-B/32.", {"patch": 32}),
            ("vit_b16", "ViT-B/16.", {}),
            ("vit_l32", "ViT-L/32.", {"layers": 24, "heads": 16, "width": 1024, "patch": 32}),
            ("vit_l16", "ViT-L/16.", {"layers": 24, "heads": 16, "width": 1024}),
            ("vit_h14", "ViT-H/14.", {"layers": 32, "heads": 16, "width": 1280, "patch": 14}),
        )
    },
    **{
        name: _sized(
            Mixer,
            name.replace("mixer_", "Mixer"),
            f"Mixer-{name[6].upper()}/{patch}.",
            layers=layers,
            width=width,
            patch=patch,
            token_hidden=width // 2,
            channel_hidden=4 * width,
        )
        for name, layers, width, patch in (
            ("mixer_s32", 8, 512, 32),
            ("mixer_s16", 8, 512, 16),
            ("mixer_b32", 12, 768, 32),
            ("mixer_b16", 12, 768, 16),
            ("mixer_l32", 24, 1024, 32),
            ("mixer_l16", 24, 1024, 16),
        )
    },
    **{
        name: _sized(GPTNano, kind, text, **sizes)
        for name, kind, text, sizes in (
            ("gpt2", "GPT2", "GPT-2, 124 million parameters.",
             {**_GPT2, "layers": 12, "heads": 12, "width": 768}),
            ("gpt2_medium", "GPT2Medium", "GPT-2, 355 million parameters.",
             {**_GPT2, "layers": 24, "heads": 16, "width": 1024}),
            ("gpt2_large", "GPT2Large", "GPT-2, 774 million parameters.",
             {**_GPT2, "layers": 36, "heads": 20, "width": 1280}),
            ("gpt2_xl", "GPT2XL", "GPT-2, 1.6 billion parameters.",
             {**_GPT2, "layers": 48, "heads": 25, "width": 1600}),
            ("llama_tiny", "LlamaTiny", "TinyLlama, 1.1 billion parameters.",
             {**_LLAMA, "layers": 22, "heads": 32, "kv_heads": 4, "width": 2048, "hidden": 5632}),
            ("llama2_7b", "Llama2", "Llama 2, 7 billion parameters.",
             {**_LLAMA, "layers": 32, "heads": 32, "width": 4096, "hidden": 11008}),
            ("llama3_8b", "Llama3", "Llama 3, 8 billion parameters.",
             {**_LLAMA, "layers": 32, "heads": 32, "kv_heads": 8, "width": 4096, "hidden": 14336,
              "rotary_base": 5e5}),
        )
    },
    "char_rnn": CharRNN,
    "gpt_nano": GPTNano,
}  # fmt: skip
"""Choice -> its settings."""
