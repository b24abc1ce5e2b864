"""Logits on foreign weights against those of the library that they are of (``weights.npz``).

The numbers were made once by ``make_weights.py``; neither PyTorch nor what stands on it is needed
here. The weights are drawn by name, here as there.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import interop, models
from functorch_kit.config.zoo import zoo_model
from tests.golden import drawn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FILE = Path(__file__).with_name("weights.npz")
BOUND = 1e-4
GPT2 = dataclasses.replace(
    models.GPT_SIZES["gpt2"], layers=2, heads=2, width=8, vocabulary=11, context=12
)
LLAMA = dataclasses.replace(
    models.GPT_SIZES["llama3_8b"],
    layers=2, heads=4, kv_heads=2, width=16, hidden=24, vocabulary=11, context=32,
)  # fmt: skip
CASES: dict[str, tuple[Any, int]] = {
    "alexnet": (models.AlexNetConfig(outputs=10, dense=16), 96),
    "vgg11": (models.VGGConfig(depth=11, outputs=10, dense=16), 64),
    "vgg11_bn": (models.VGGConfig(depth=11, outputs=10, dense=16, use_norm=True), 64),
    "googlenet": (models.InceptionConfig(outputs=10), 64),
    "googlenet transform_input": (models.InceptionConfig(outputs=10, transform_input=True), 64),
    "resnet18": (models.ResNetConfig(depth=18, outputs=10), 64),
    "resnet50": (models.ResNetConfig(depth=50, outputs=10), 64),
    "hf resnet18": (models.ResNetConfig(depth=18, outputs=10), 64),
    "hf resnet50": (models.ResNetConfig(depth=50, outputs=10), 64),
    "vit": (
        models.ViTConfig(
            layers=2, heads=2, width=16, hidden=24, patch=8, outputs=10, epsilon=1e-12
        ),
        32,
    ),
    "gpt2": (GPT2, 0),
    "llama": (LLAMA, 0),
    "llama tied": (
        dataclasses.replace(LLAMA, kv_heads=4, rotary_base=1e4, is_tied=True),
        0,
    ),
}
LARGE = {"vgg11", "vgg11_bn", "googlenet", "googlenet transform_input", "resnet50", "hf resnet50"}


@functools.cache
def made(config: Any) -> tuple[Any, Any]:
    """A model, and what it computes, compiled once for the weights of both libraries."""
    model = zoo_model(config)
    return model, jax.jit(lambda params, state, x: model.apply(params, state, x)[0])


def logits(config: Any, tensors: Any, x: Any) -> Any:
    model, program = made(config)
    params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    table = min(interop.tables(config), key=lambda table: table.missing_from(tensors))
    found = table.read(tensors, params, state)
    assert found.notes == ()
    return program(*found.into(params, state), x)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak if name in LARGE else ()) for name in CASES]
)
def test_logits_are_those_of_the_library(name: str):
    config, side = CASES[name]
    with np.load(FILE) as file:
        expected, shapes = file[f"{name}|y"], drawn.from_text(str(file[f"{name}|shapes"]))
    x = drawn.image(name, side) if side else drawn.tokens(name, 11, 9)
    y = logits(config, drawn.all_drawn(shapes), x)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=BOUND)


def test_every_recorded_model_is_tried():
    with np.load(FILE) as file:
        recorded = {key.removesuffix("|y") for key in file.files if key.endswith("|y")}
    assert recorded == set(CASES)


def test_the_small_files_are_small():
    files = [file for file in (FILE.parent / "weights").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 200_000
