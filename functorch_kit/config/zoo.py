"""From the name and the settings of a model to a model of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from functorch_kit import models
from functorch_kit.types import Model

_CONFIGS: dict[str, Callable[..., Any]] = {
    "cnn": models.CNNConfig,
    "mlp": models.MLPConfig,
    "alexnet": models.AlexNetConfig,
    "inception": models.InceptionConfig,
    "char_rnn": models.CharRNNConfig,
    **{f"vgg{depth}": partial(models.VGGConfig, depth=depth) for depth in (11, 13, 16, 19)},
    **{
        f"resnet{depth}": partial(models.ResNetConfig, depth=depth)
        for depth in (18, 34, 50, 101, 152, 200)
    },
    **dict.fromkeys(models.VIT_SIZES, models.ViTConfig),
    **dict.fromkeys(models.MIXER_SIZES, models.MixerConfig),
    **dict.fromkeys(models.GPT_SIZES, models.GPTConfig),
}
MAKERS: dict[type, Callable[[Any], Model]] = {
    models.CNNConfig: models.cnn,
    models.MLPConfig: models.mlp,
    models.AlexNetConfig: models.alexnet,
    models.VGGConfig: models.vgg,
    models.InceptionConfig: models.inception,
    models.ResNetConfig: models.resnet,
    models.ViTConfig: models.vit,
    models.MixerConfig: models.mixer,
    models.GPTConfig: models.gpt,
    models.CharRNNConfig: models.char_rnn,
}
"""Kind of configuration -> the function that makes its model."""


def zoo_config(choice: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of the zoo that a choice stands for.

    Args:
        choice: such as ``"resnet18"``.
        settings: of the model, and what it takes over from the data; numbers may be traced.

    Example:
        >>> zoo_config("resnet34", {"outputs": 10}).depth
        34
    """
    return _CONFIGS[choice](**settings)


def zoo_model(config: Any) -> Model:
    """The model of a configuration of the zoo.

    Example:
        >>> from functorch_kit import models
        >>> zoo_model(models.MLPConfig()).init.__name__
        'init'
    """
    return MAKERS[type(config)](config)
