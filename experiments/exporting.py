"""The three forms that a trained model leaves in, and what is said of them."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from functorch_kit import export, interop
from functorch_kit.config import ConfigError, Servable
from functorch_kit.config.serving import servable_config
from functorch_kit.export.program import leaves
from functorch_kit.export.saving import save_as, write_params

HERE = Path(__file__).parent
_MOST_SECONDS = 1800


def facts(found: Servable, config: Any) -> dict[str, Any]:
    """What a manifest says of a run's model, whatever its form."""
    return {
        "records": found.inputs,
        "task": found.task,
        "classes": found.classes,
        "vocabulary": found.vocabulary,
        "source": {"run": Path(config.run).resolve().name, "step": found.step},
        "overwrite": config.overwrite,
    }


def as_program(found: Servable, config: Any) -> export.Manifest:
    return export.save(
        config.out, found.model, found.params, found.model_state, found.inputs.spec,
        gradients=config.gradients, batch=config.batch, days=config.days, **facts(found, config),
    )  # fmt: skip


def as_tensors(found: Servable, config: Any) -> export.Manifest:
    told = facts(found, config)
    if config.names == "native":
        return export.save_params(
            config.out, found.params, found.model_state, inputs=found.inputs.spec,
            outputs=_outputs(found), **told,
        )  # fmt: skip
    zoo, shape = servable_config(found.recipe), found.inputs.shape
    settings = interop.hugging_face_settings(zoo, image=shape, classes=found.classes)
    names = interop.hugging_face(zoo)

    def write(draft: Path) -> dict[str, str]:
        names.save(draft / "model.safetensors", found.params, found.model_state)
        (draft / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        return {}

    given, made = leaves("x", found.inputs.spec), leaves("y", _outputs(found))
    return save_as(config.out, "hugging_face", write, inputs=given, outputs=made, **told)


def as_onnx(found: Servable, config: Any) -> export.Manifest:
    """Convert in the environment that has jax2onnx: it gets a recipe and a file, and no code."""
    python = config.onnx_python or sys.executable
    if config.onnx_python is None and importlib.util.find_spec("jax2onnx") is None:
        raise ConfigError(
            "format=onnx needs jax2onnx, which does not go with this environment's Orbax:"
            " python -m venv onnx && onnx/bin/pip install jax2onnx onnxruntime optax pyyaml"
            " jaxtyping, and give onnx_python=onnx/bin/python"
        )
    batch = "batch" if config.batch is None else config.batch

    def write(draft: Path) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            write_params(Path(folder) / "params.safetensors", found.params, found.model_state)
            recipe = {"recipe": found.recipe, "batch": batch, "out": str(draft / "model.onnx")}
            (Path(folder) / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
            return _converted(python, Path(folder))

    signature = [leaves(name, spec)[0] for name, spec in
                 (("x", found.inputs.spec), ("y", _outputs(found)))]  # fmt: skip
    given, made = (
        (export.Leaf(leaf.name, (batch, *leaf.shape[1:]), leaf.dtype),) for leaf in signature
    )
    return save_as(config.out, "onnx", write, inputs=given, outputs=made, **facts(found, config))


def in_words(manifest: export.Manifest) -> str:
    """What goes in, what comes out, and until when: two lines for a reader."""
    signature = f"{', '.join(map(str, manifest.inputs))} -> {', '.join(map(str, manifest.outputs))}"
    size = sum(file.bytes for file in manifest.files.values())
    lines = [f"{manifest.format}: {signature}, {size:,} bytes"]
    if manifest.expires is not None:
        platforms = ", ".join(manifest.platforms)
        lines.append(f"for {platforms}, until {manifest.expires}")
    return "\n".join(lines)


def _outputs(found: Servable) -> Any:
    def forward(params: Any, state: Any, x: Any) -> Any:
        return found.model.apply(params, state, x)[0]

    return jax.eval_shape(forward, found.params, found.model_state, found.inputs.spec)


def _converted(python: str, folder: Path) -> dict[str, str]:
    """The versions that the other Python says it converted with."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [python, str(HERE / "convert_to_onnx.py"), str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it took too long"
        raise ConfigError(
            f"onnx_python is {python!r}, which cannot be started: {reason}"
        ) from error
    lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
    if ended.returncode:
        raise ConfigError(f"not converted to ONNX: {lines[-1].removeprefix('error: ')[:500]}")
    return json.loads(ended.stdout.splitlines()[-1])
