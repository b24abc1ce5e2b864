"""The zoo: each model is a frozen Config and a function that returns a Model."""

from functorch_kit.models.cnn import CNNConfig, cnn
from functorch_kit.models.gan import gan
from functorch_kit.models.gpt import GPTConfig, gpt
from functorch_kit.models.mlp import MLPConfig, mlp
from functorch_kit.models.resnet import ResNetConfig, resnet
from functorch_kit.models.vae import vae

__all__ = [
    "CNNConfig",
    "GPTConfig",
    "MLPConfig",
    "ResNetConfig",
    "cnn",
    "gan",
    "gpt",
    "mlp",
    "resnet",
    "vae",
]
