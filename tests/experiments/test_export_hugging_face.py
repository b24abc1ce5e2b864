"""A run leaves under Hugging Face's names, and their library computes the same from the folder.

python -m pytest -m soak tests/experiments/test_export_hugging_face.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import export
from functorch_kit.config import MODELS, Config, Servable, servable_model
from functorch_kit.config.serving import recipe_of
from functorch_kit.data import Inputs
from functorch_kit.interop import InteropError, hugging_face_settings
from functorch_kit.models import GPTConfig, MLPConfig, ResNetConfig, ViTConfig
from tests.golden.torch_peers import torchvision_models

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEXT = Inputs("text", (8,), "int32"), {"vocabulary": 11, "context": 8}
IMAGES = Inputs("array", (32, 32, 3), "float32"), {"outputs": 3}
JOBS: dict[str, tuple[dict[str, Any], tuple[Inputs, dict[str, int]]]] = {
    "gpt2": ({"layers": 2, "heads": 2, "width": 8}, TEXT),
    "llama_tiny": ({"layers": 2, "heads": 4, "kv_heads": 2, "width": 16, "hidden": 12}, TEXT),
    "vit_b16": ({"layers": 2, "heads": 2, "width": 8}, IMAGES),
    "resnet18": ({"width": 4}, IMAGES),
    "resnet50": ({"width": 4}, IMAGES),
}


def servable(name: str) -> Servable:
    """A model of the zoo as a run leaves it, with parameters as they begin."""
    settings, (inputs, sizes) = JOBS[name]
    recipe = recipe_of(Config(MODELS[name](**settings)), sizes, inputs)
    model = servable_model(recipe)
    params, state = jax.jit(lambda key: model.init(key, inputs.spec))(jax.random.key(0))
    classes = () if inputs.kind == "text" else ("a", "b", "c")
    return Servable(recipe, params, state, inputs, "", classes, None, 0)


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module beside the scripts."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import exporting  # pyright: ignore[reportMissingImports]

    with jax.numpy_dtype_promotion("standard"):
        yield exporting
    sys.modules.pop("exporting", None)


@pytest.mark.soak
@pytest.mark.parametrize("name", JOBS)
def test_transformers_opens_the_folder_and_computes_the_same(
    exporting: Any, tmp_path: Path, name: str
):
    try:
        torchvision_models()  # first: transformers imports it, too
    except ImportError:
        pytest.skip("torchvision is not installed")
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    found = servable(name)
    exporting.as_tensors(
        found,
        SimpleNamespace(run="run", out=tmp_path / "out", names="hugging_face", overwrite=False),
    )
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    opened = getattr(hf, told["architectures"][0]).from_pretrained(tmp_path / "out").eval()
    random = np.random.default_rng(0)
    if found.inputs.kind == "text":
        x = random.integers(0, 11, (2, 8)).astype(np.int32)
        given = torch.from_numpy(x).long()
    else:
        x = random.normal(size=(2, 32, 32, 3)).astype(np.float32)
        given = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = opened(given).logits.numpy()
    expected, _ = jax.jit(found.model.apply)(found.params, found.model_state, jnp.asarray(x))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert export.read(tmp_path / "out").format == "hugging_face"


def test_the_settings_are_theirs_for_the_same_model():
    """Numbers of ViT-B/16 and ResNet-50 as their own files have them."""
    made = hugging_face_settings(ViTConfig(epsilon=1e-12), image=(224, 224, 3), classes=("a", "b"))
    expected = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072,
                "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-12}  # fmt: skip
    assert made.items() >= expected.items()
    assert made["id2label"] == {"0": "a", "1": "b"}
    made = hugging_face_settings(ResNetConfig(50, 10), image=(224, 224, 3))
    assert made["hidden_sizes"] == [256, 512, 1024, 2048]
    assert made["depths"] == [3, 4, 6, 3]
    assert len(made["id2label"]) == 10


@pytest.mark.parametrize(
    ("config", "image"),
    [
        (MLPConfig(), ()),
        (ResNetConfig(18, stem="cifar"), (32, 32, 3)),
        (ViTConfig(), (224, 192, 3)),
        (GPTConfig(window=4), ()),
    ],
)
def test_what_they_have_no_model_of_is_refused(config: Any, image: tuple[int, ...]):
    with pytest.raises(InteropError, match="Hugging Face has no model that computes what"):
        hugging_face_settings(config, image=image)
