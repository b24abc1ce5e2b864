"""ONNX: the same model as a graph that runs without Python, written by jax2onnx where that is."""

from __future__ import annotations

import importlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit.export.errors import ArtifactError
from functorch_kit.types import Model, ModelState, Params

OPSET = 21
_TOLERANCE = 1e-5


def write_onnx(
    path: str | Path,
    model: Model,
    params: Params,
    model_state: ModelState,
    x_spec: jax.ShapeDtypeStruct,
    *,
    batch: int | str = "batch",
    opset: int = OPSET,
) -> dict[str, str]:
    """Write what a model computes in evaluation as an ONNX file, parameters and all.

    The file is run before it is kept: what onnxruntime computes from random inputs has to be what
    JAX computes, within 1e-5 of the largest number.

    Args:
        path: of the file.
        model: any Model of one input and one output.
        params: its parameters.
        model_state: its state.
        x_spec: shape and dtype of a batch.
        batch: records in every batch, or a word for any number.
        opset: version of ONNX's operations.

    Returns:
        Versions of what made the file.

    Raises:
        ArtifactError: jax2onnx is not installed, cannot convert the model, or what it made computes
            something else.

    Example:
        >>> import importlib.util
        >>> from functorch_kit import nn
        >>> if importlib.util.find_spec("jax2onnx") is None:
        ...     try:
        ...         write_onnx("a.onnx", nn.relu, {}, (), jax.ShapeDtypeStruct((1,), np.float32))
        ...     except ArtifactError as error:
        ...         print(error)
        jax2onnx is not installed here: pip install jax2onnx onnxruntime
    """
    # By name: they need not be there where types are checked.
    jax2onnx, onnxruntime = (_library(name) for name in ("jax2onnx", "onnxruntime"))

    def forward(x: jax.Array) -> Any:
        return model.apply(params, model_state, x, train=False)[0]

    shape = (batch, *x_spec.shape[1:])
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a line for every axis it adds
    try:
        jax2onnx.to_onnx(
            forward,
            [jax.ShapeDtypeStruct(shape, x_spec.dtype)],
            model_name="model",
            opset=opset,
            input_names=["x"],
            output_names=["y"],
            return_mode="file",
            output_path=str(path),
        )
        _pool_over_space(Path(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of a converter that knows many operations, and not all
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArtifactError(f"the model cannot be converted to ONNX: {reason}") from error
    for count in (batch,) if isinstance(batch, int) else (1, 3):
        x = _random(count, x_spec)
        (found,) = session.run(["y"], {"x": x})
        expected = np.asarray(jax.jit(forward)(x))
        difference = float(np.abs(found - expected).max(initial=0))
        if found.shape != expected.shape or not difference <= _TOLERANCE * _scale(expected):
            raise ArtifactError(
                f"the ONNX file computes something else: {difference:.3g} off for {count} records"
            )
    return {name: version(name) for name in ("jax2onnx", "onnx", "onnxruntime", "jax")}


def _pool_over_space(path: Path) -> None:
    """Rewrite pools over (batch, *space, channels), which no runtime has, as pools over space.

    jax2onnx 0.17 writes a window that slides over all axes as it finds it, behind two axes of one.
    """
    onnx = _library("onnx")
    helper, model, made = onnx.helper, onnx.load(path), list[Any]()
    for place, node in enumerate(model.graph.node):
        options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        window = options.get("kernel_shape", [])
        if node.op_type != "MaxPool" or len(window) < 4 or window[0] != 1 or window[-1] != 1:
            made.append(node)
            continue
        axes = len(window)
        first, last = f"pool_{place}_axes", [*range(axes)]
        to_front, to_back = [0, axes - 1, *last[1:-1]], [0, *last[2:], 1]
        names = [f"pool_{place}_{step}" for step in range(4)]
        strides, pads = options.get("strides", [1] * axes), options.get("pads", [0] * 2 * axes)
        inner = {
            "kernel_shape": window[1:-1],
            "strides": strides[1:-1],
            "pads": [*pads[1 : axes - 1], *pads[axes + 1 : -1]],
        }
        model.graph.initializer.append(
            helper.make_tensor(first, onnx.TensorProto.INT64, [2], [0, 1])
        )
        made += [
            helper.make_node("Squeeze", [node.input[0], first], [names[0]]),
            helper.make_node("Transpose", [names[0]], [names[1]], perm=to_front),
            helper.make_node("MaxPool", [names[1]], [names[2]], **inner),
            helper.make_node("Transpose", [names[2]], [names[3]], perm=to_back),
            helper.make_node("Unsqueeze", [names[3], first], [node.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(made)
    onnx.save(model, path)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArtifactError(
            f"{name} is not installed here: pip install jax2onnx onnxruntime"
        ) from error


def _random(count: int, x_spec: jax.ShapeDtypeStruct) -> np.ndarray:
    shape, random = (count, *x_spec.shape[1:]), np.random.default_rng(0)
    if np.issubdtype(x_spec.dtype, np.floating):
        return random.normal(size=shape).astype(x_spec.dtype)
    # Tokens: the two that every vocabulary has.
    return random.integers(0, 2, shape).astype(x_spec.dtype)


def _scale(expected: np.ndarray) -> float:
    return max(1.0, float(np.abs(expected).max(initial=0)))
