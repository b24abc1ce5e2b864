"""The zoo: each model is a frozen Config and a function that returns a Model."""

from functorch_kit.models.alexnet import AlexNetConfig, alexnet
from functorch_kit.models.autoencoder import AutoencoderConfig, autoencoder
from functorch_kit.models.char_rnn import CharRNNConfig, char_rnn
from functorch_kit.models.cnn import CNNConfig, cnn
from functorch_kit.models.dynamic import dynamic
from functorch_kit.models.gan import gan
from functorch_kit.models.gpt import GPT_SIZES, GPTConfig, gpt, gpt_decoder
from functorch_kit.models.inception import InceptionConfig, inception
from functorch_kit.models.mixer import MIXER_SIZES, MixerConfig, mixer
from functorch_kit.models.mlp import MLPConfig, TwoLayerConfig, mlp, two_layer
from functorch_kit.models.module_network import ModuleNetworkConfig, layouts, module_network
from functorch_kit.models.resnet import ResNetConfig, resnet
from functorch_kit.models.schedule import Node, schedule
from functorch_kit.models.seq2seq import Seq2SeqConfig, seq2seq
from functorch_kit.models.tree_lstm import (
    TreeLSTMConfig,
    forest,
    tree_lstm,
    tree_lstm_one_by_one,
)
from functorch_kit.models.unet import UNetConfig, unet
from functorch_kit.models.vae import vae
from functorch_kit.models.vgg import VGGConfig, vgg
from functorch_kit.models.vit import VIT_SIZES, ViTConfig, vit

__all__ = [
    "GPT_SIZES",
    "MIXER_SIZES",
    "VIT_SIZES",
    "AlexNetConfig",
    "AutoencoderConfig",
    "CNNConfig",
    "CharRNNConfig",
    "GPTConfig",
    "InceptionConfig",
    "MLPConfig",
    "MixerConfig",
    "ModuleNetworkConfig",
    "Node",
    "ResNetConfig",
    "Seq2SeqConfig",
    "TreeLSTMConfig",
    "TwoLayerConfig",
    "UNetConfig",
    "VGGConfig",
    "ViTConfig",
    "alexnet",
    "autoencoder",
    "char_rnn",
    "cnn",
    "dynamic",
    "forest",
    "gan",
    "gpt",
    "gpt_decoder",
    "inception",
    "layouts",
    "mixer",
    "mlp",
    "module_network",
    "resnet",
    "schedule",
    "seq2seq",
    "tree_lstm",
    "tree_lstm_one_by_one",
    "two_layer",
    "unet",
    "vae",
    "vgg",
    "vit",
]
