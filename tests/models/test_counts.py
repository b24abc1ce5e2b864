"""Parameter counts of the whole zoo, as they were published for 1000 classes at 224²."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import models

KEY = jax.random.key(0)
IMAGES = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((1, 8), jnp.int32)
TREES = models.forest([(1, 2)], width=2)
MNIST = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)

# Model, its input, how many parameters were published, and where (or how they are counted).
PUBLISHED = {
    "two-layer": (
        models.two_layer(models.TwoLayerConfig()),
        jax.ShapeDtypeStruct((64, 1000), jnp.float32),
        1000 * 100 + 100 * 10,
        "closed form",
    ),
    "alexnet": (models.alexnet(models.AlexNetConfig()), IMAGES, 61_100_840, "torchvision"),
    **{
        f"vgg{depth}": (models.vgg(models.VGGConfig(depth=depth)), IMAGES, count, "torchvision")
        for depth, count in {
            11: 132_863_336,
            13: 133_047_848,
            16: 138_357_544,
            19: 143_667_240,
        }.items()
    },
    "vgg16 with norms": (
        models.vgg(models.VGGConfig(use_norm=True)),
        IMAGES,
        138_365_992,
        "torchvision",
    ),
    "inception": (models.inception(models.InceptionConfig()), IMAGES, 6_624_904, "torchvision"),
    "inception with heads": (
        models.inception(models.InceptionConfig(auxiliary=True)),
        IMAGES,
        13_004_888,
        "torchvision",
    ),
    **{
        f"resnet{depth}": (models.resnet(models.ResNetConfig(depth=depth)), IMAGES, count, where)
        for depth, count, where in (
            (18, 11_689_512, "torchvision"),
            (34, 21_797_672, "torchvision"),
            (50, 25_557_032, "torchvision"),
            (101, 44_549_160, "torchvision"),
            (152, 60_192_808, "torchvision"),
            (200, 64_673_832, "timm"),
        )
    },
    **{
        f"pre-activated resnet{depth}": (
            models.resnet(models.ResNetConfig(depth=depth, is_preactivation=True)),
            IMAGES,
            count,
            "timm, resnetv2",
        )
        for depth, count in {50: 25_549_352, 101: 44_541_480}.items()
    },
    **{
        name: (models.mixer(models.MIXER_SIZES[name]), IMAGES, count, "timm")
        for name, count in {
            "mixer_s32": 19_104_624,
            "mixer_s16": 18_528_264,
            "mixer_b32": 60_293_428,
            "mixer_b16": 59_880_472,
            "mixer_l32": 206_939_264,
            "mixer_l16": 208_196_168,
        }.items()
    },
    **{
        name: (models.vit(models.VIT_SIZES[name]), IMAGES, count, where)
        for name, count, where in (
            ("vit_ti16", 5_717_416, "timm"),
            ("vit_s16", 22_050_664, "timm"),
            ("vit_b32", 88_224_232, "torchvision"),
            ("vit_b16", 86_567_656, "torchvision"),
            ("vit_l32", 306_535_400, "torchvision"),
            ("vit_l16", 304_326_632, "torchvision"),
            ("vit_h14", 632_045_800, "timm"),
        )
    },
    **{
        name: (models.gpt(models.GPT_SIZES[name]), TOKENS, count, where)
        for name, count, where in (
            ("gpt_nano", 804_096, "nanoGPT, 0.80M without positions"),
            ("gpt2", 124_439_808, "Hugging Face"),
            ("gpt2_medium", 354_823_168, "Hugging Face"),
            ("gpt2_large", 774_030_080, "Hugging Face"),
            ("gpt2_xl", 1_557_611_200, "Hugging Face"),
            ("llama_tiny", 1_100_048_384, "TinyLlama"),
            ("llama2_7b", 6_738_415_616, "Hugging Face"),
            ("llama3_8b", 8_030_261_248, "Hugging Face"),
        )
    },
    "char-rnn": (models.char_rnn(models.CharRNNConfig()), TOKENS, 240_321, "char-rnn's log"),
    "unet": (
        models.unet(models.UNetConfig(features=(64, 128, 256, 512, 1024))),
        IMAGES,
        31_037_698,
        "milesial/Pytorch-UNet",
    ),
    "autoencoder": (
        models.autoencoder(models.AutoencoderConfig()),
        MNIST,
        785 * 400 + 401 * 20 + 21 * 400 + 401 * 784,
        "closed form",
    ),
    "vae": (
        models.autoencoder(models.AutoencoderConfig(is_variational=True)),
        MNIST,
        652_824,
        "pytorch/examples",
    ),
}


def _count(model, x) -> int:
    params, _ = jax.eval_shape(lambda: model.init(KEY, x))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# Deep ones, of which a shallower size is counted as well, take seconds to trace.
_DEEP = {
    *("gpt2_large", "gpt2_xl", "llama2_7b", "vit_l16", "vit_l32", "vit_h14", "resnet152"),
    *("resnet200", "mixer_l16", "mixer_l32"),
}


@pytest.mark.parametrize(
    ("model", "x", "published"),
    [
        pytest.param(*row[:3], id=name, marks=[pytest.mark.soak] if name in _DEEP else [])
        for name, row in PUBLISHED.items()
    ],
)
def test_the_number_of_parameters_is_the_published_one(model, x, published):
    assert _count(model, x) == published


def test_a_tree_lstm_composes_with_the_316_800_parameters_of_tai():
    config = models.TreeLSTMConfig()
    params, _ = jax.eval_shape(lambda: models.tree_lstm(config).init(KEY, TREES))
    of_composition = {
        "leaf": {name: params["tree"]["leaf"][name] for name in ("cell", "output")},
        "pair": params["tree"]["pair"],
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(of_composition)) == 316_800


def test_a_translator_is_the_sum_of_its_parts():
    config = models.Seq2SeqConfig(source_vocabulary=7, target_vocabulary=9, embedding=4, width=6)
    x = dict.fromkeys(("source", "target"), TOKENS)
    # A GRU has three gates from input and hidden, with a bias each.
    encoder = 2 * 3 * 3 * (4 + 3 + 2)
    decoder = 3 * 6 * (4 + 6 + 2)
    closed = 7 * 4 + 9 * 4 + encoder + decoder + 4 * 36 + (12 + 1) * 6 + (6 + 1) * 9
    assert _count(models.seq2seq(config), x) == closed


@pytest.mark.parametrize(
    ("make", "config", "x"),
    [
        (models.gpt, models.GPT_SIZES["gpt2"], TOKENS),
        (models.vit, models.VIT_SIZES["vit_b16"], IMAGES),
    ],
    ids=["gpt2", "vit_b16"],
)
def test_a_repeated_model_has_as_many_as_a_stacked_one(make: Any, config: Any, x: Any):
    repeated = dataclasses.replace(config, is_repeated=True)
    assert _count(make(repeated), x) == _count(make(config), x)
