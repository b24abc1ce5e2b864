"""Models saved by torchvision and by Hugging Face, where they are installed: equal logits.

python -m pytest -m soak tests/golden/test_torch_models.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import interop, models
from functorch_kit.config.zoo import zoo_model
from tests.golden.torch_peers import torchvision_models

pytestmark = pytest.mark.soak

BOUND = 1e-4
VISION = {
    "alexnet": models.AlexNetConfig(),
    "vgg11": models.VGGConfig(depth=11),
    "vgg16_bn": models.VGGConfig(depth=16, use_norm=True),
    "googlenet": models.InceptionConfig(transform_input=True),
    **{f"resnet{depth}": models.ResNetConfig(depth=depth) for depth in (18, 34, 50, 101, 152)},
}


@pytest.fixture
def torch() -> Iterator[Any]:
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    # What their imports warn of is not ours to judge; transformers imports torchvision, too.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImportError):
            torchvision_models()
        with contextlib.suppress(ImportError):
            importlib.import_module("transformers")
        yield found


def torchvision() -> Any:
    try:
        return torchvision_models()
    except ImportError:
        pytest.skip("torchvision is not installed")


def logits(path: Path, config: Any, x: np.ndarray) -> Any:
    model = zoo_model(config)
    specs = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    params, state = interop.load(path, config, *specs)
    return jax.jit(lambda p, s, x: model.apply(p, s, x)[0])(params, state, x)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", VISION)
def test_torchvision_saves_and_we_compute_the_same(
    torch: Any, tmp_path: Path, name: str, is_zip: bool
):
    zoo = torchvision()
    if not is_zip and name not in ("resnet18", "googlenet"):
        pytest.skip("the way that a file is written is tried on two of them")
    torch.manual_seed(0)
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    theirs = getattr(zoo, name)(weights=None, **options).eval()
    path = tmp_path / f"{name}.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    x = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits(path, VISION[name], x), expected, rtol=1e-5, atol=BOUND)


def language_models(hf: Any) -> dict[str, tuple[Any, Any]]:
    llama = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4,
             "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 500,
             "rms_norm_eps": 1e-5}  # fmt: skip
    return {
        "gpt2": (hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=4)),
                 dataclasses.replace(models.GPT_SIZES["gpt2"], layers=4)),
        "llama": (
            hf.LlamaForCausalLM(hf.LlamaConfig(**llama)),
            dataclasses.replace(models.GPT_SIZES["llama_tiny"], layers=4, heads=8, kv_heads=4,
                                width=64, hidden=176, vocabulary=500)),
    }  # fmt: skip


@pytest.mark.parametrize("shard", ["10GB", "1MB"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_hugging_face_saves_a_language_model_and_we_compute_the_same(
    torch: Any, tmp_path: Path, name: str, shard: str
):
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    theirs, config = language_models(hf)[name]
    theirs.eval().save_pretrained(tmp_path, max_shard_size=shard)
    x = np.random.default_rng(0).integers(0, 500, (2, 40)).astype(np.int32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).long()).logits.numpy()
    np.testing.assert_allclose(logits(tmp_path, config, x), expected, rtol=1e-5, atol=BOUND)


@pytest.mark.parametrize("name", ["vit", "resnet18", "resnet50"])
def test_hugging_face_saves_a_classifier_and_we_compute_the_same(
    torch: Any, tmp_path: Path, name: str
):
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    if name == "vit":
        theirs = hf.ViTForImageClassification(hf.ViTConfig(num_hidden_layers=3, num_labels=1000))
        config = dataclasses.replace(models.VIT_SIZES["vit_b16"], layers=3, epsilon=1e-12)
    elif name == "resnet18":
        made = hf.ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2],
                               layer_type="basic", num_labels=1000)  # fmt: skip
        theirs, config = hf.ResNetForImageClassification(made), models.ResNetConfig(depth=18)
    else:
        theirs = hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000))
        config = models.ResNetConfig(depth=50)
    theirs.eval().save_pretrained(tmp_path)
    x = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(logits(tmp_path, config, x), expected, rtol=1e-5, atol=BOUND)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_hugging_face_opens_what_we_write_and_computes_the_same(
    torch: Any, tmp_path: Path, name: str
):
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs, config = language_models(hf)[name]
    x = np.random.default_rng(0).integers(0, 500, (2, 40)).astype(np.int32)
    model = zoo_model(config)
    params, state = jax.jit(lambda key: model.init(key, x))(jax.random.key(0))
    interop.hugging_face(config).save(tmp_path / "model.safetensors", params, state)
    theirs.config.save_pretrained(tmp_path)
    opened = type(theirs).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        y = opened(torch.from_numpy(x).long()).logits.numpy()
    expected = jax.jit(lambda p, x: model.apply(p, state, x)[0])(params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=BOUND)


def test_torchvision_takes_what_we_write_in_strict_mode(torch: Any):
    zoo = torchvision()
    config = models.ResNetConfig(depth=18, outputs=7)
    model = zoo_model(config)
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    params, state = jax.jit(lambda key: model.init(key, x))(jax.random.key(0))
    theirs = zoo.resnet18(num_classes=7).eval()
    tensors = interop.torchvision(config).write(params, state)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, strict=True)
    with torch.no_grad():
        y = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    expected = jax.jit(lambda p, s, x: model.apply(p, s, x)[0])(params, state, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=BOUND)
