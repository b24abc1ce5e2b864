"""ONNX: what onnxruntime computes is what JAX computes; it needs an environment of its own.

``FUNCTORCH_KIT_ONNX_PYTHON`` names the Python of one with jax2onnx (see pyproject.toml), and
``FUNCTORCH_KIT_ONNXRUNTIME_PYTHON`` that of one with onnxruntime and no JAX.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import export
from functorch_kit.config import CNN, Config, Train, build, load_servable
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.onnx_graph import write_onnx
from functorch_kit.types import Model

ROOT = Path(__file__).parents[2]
ONNX, RUNTIME = "FUNCTORCH_KIT_ONNX_PYTHON", "FUNCTORCH_KIT_ONNXRUNTIME_PYTHON"
ZOO = """
import sys
import jax, jax.numpy as jnp
from functorch_kit import models
from functorch_kit.export.onnx_graph import write_onnx
spec = jax.ShapeDtypeStruct
images, tokens = spec((1, 32, 32, 3), jnp.float32), spec((1, 6), jnp.int32)
zoo = {
    "resnet": (models.resnet(models.ResNetConfig(18, 3, "imagenet", 2)), images),
    "gpt": (models.gpt(models.GPTConfig(2, 2, 8, 6, 5)), tokens),
    "vit": (models.vit(models.ViTConfig(8, 2, 4, 6, 2, outputs=3)), images),
}
for name, (model, x) in zoo.items():
    params, state = jax.jit(lambda key: model.init(key, x))(jax.random.key(0))
    print(name, write_onnx(f"{sys.argv[1]}/{name}.onnx", model, params, state, x))
"""


def _python(variable: str) -> str:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no Python")
    return os.environ[variable]


def _run(*words: Any) -> str:
    ended = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_where_there_is_no_jax2onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    import importlib

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    same = Model(lambda key, x: ({}, ()), lambda params, state, x, **_: (x, ()))
    with pytest.raises(ArtifactError, match="jax2onnx is not installed here: pip install jax2onnx"):
        write_onnx("a.onnx", same, {}, (), jax.ShapeDtypeStruct((1, 2), np.float32))


def test_a_run_leaves_as_onnx_and_runs_where_there_is_no_jax(
    tmp_path: Path, script_environment: dict[str, str]
):
    onnx_python, runtime_python = _python(ONNX), _python(RUNTIME)
    job = Config(CNN((4, 8), 16), train=Train(steps=30), run_dir=str(tmp_path / "run"), quiet=True)
    with jax.numpy_dtype_promotion("standard"):
        build(job).fit()
    words = [f"run={tmp_path / 'run'}", f"out={tmp_path / 'graph'}", "format=onnx"]
    script = ROOT / "experiments" / "export.py"
    out = _run(sys.executable, script, *words, f"onnx_python={onnx_python}")
    assert out.startswith("onnx: float32(batch, 8, 8, 1) -> float32(batch, 10), ")
    assert export.read(tmp_path / "graph").versions["jax2onnx"] >= "0.17.1"
    found = load_servable(tmp_path / "run")
    x = np.random.default_rng(0).uniform(size=(7, 8, 8, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    _run(runtime_python, "-c", "import importlib.util as u; assert u.find_spec('jax') is None")
    lines = _run(
        runtime_python, ROOT / "experiments" / "onnx_without_jax.py", tmp_path / "graph",
        tmp_path / "x.npy",
    ).splitlines()  # fmt: skip
    expected, _ = jax.jit(found.model.apply)(found.params, found.model_state, x)
    logits = np.array([line.split()[2:] for line in lines], np.float64)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert [int(line.split()[1]) for line in lines] == np.argmax(expected, 1).tolist()


@pytest.mark.soak
def test_models_of_the_zoo_are_converted_and_computed_alike(tmp_path: Path):
    """``write_onnx`` compares each with JAX's numbers before it keeps the file."""
    out = _run(_python(ONNX), "-c", ZOO, tmp_path)
    assert [line.split()[0] for line in out.splitlines()] == ["resnet", "gpt", "vit"]
