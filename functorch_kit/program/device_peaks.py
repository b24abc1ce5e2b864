"""What vendors say that their devices reach, without sparsity."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

# TFLOP/s of dense matrix products: (device_kind, bfloat16 and float16, TF32, float32).
# H100 SXM, H200 and A100 in bfloat16, TPU v4, v5e and v5p: the vendors' published figures. Other
# rows and columns are quoted from memory and were not yet compared with a data sheet: read a share
# of peak on those devices with that in mind. Without sparsity. V100 and T4 multiply float16 only.
# TPU: a JAX device is a chip from v4 on, and one of a chip's two cores before. They multiply
# float32 in bfloat16 unless more is asked for.
# The first pattern that matches the device's name counts.
_PEAKS: tuple[tuple[str, float | None, float | None, float | None], ...] = (
    (r"\bGB?200\b|\bB200\b", 2250.0, 1125.0, 75.0),
    (r"\bH100 PCIe", 756.0, 378.0, 51.0),
    (r"\bH[12]00 NVL", 835.5, 417.5, 60.0),
    (r"\bH100\b|\bH200\b|\bGH200\b", 989.4, 494.7, 66.9),
    (r"\bA100\b", 312.0, 156.0, 19.5),
    (r"\bL40S\b", 362.0, 183.0, 91.6),
    (r"\bL4\b", 121.0, 60.0, 30.3),
    (r"\bV100-PCIE", 112.0, None, 14.0),
    (r"\bV100\b", 125.0, None, 15.7),
    (r"\bT4\b", 65.0, None, 8.1),
    (r"\bTPU v6 ?(?:lite|e)", 918.0, None, None),
    (r"\bTPU v5 ?(?:lite|e)", 197.0, None, None),
    (r"\bTPU v5", 459.0, None, None),
    (r"\bTPU v4", 275.0, None, None),
    (r"\bTPU v3", 61.5, None, None),
    (r"\bTPU v2", 22.5, None, None),
)
_FLOAT16_ONLY = re.compile(r"\bV100|\bT4\b")
_COLUMN = {"bfloat16": 0, "float16": 0, "tensorfloat32": 1, "float32": 2}
_EXACT = ("highest", "float32", "F32_F32_F32")


def peak_flops(device_kind: str, arithmetic: str = "bfloat16") -> float | None:
    """The vendor's figure for dense matrix products.

    Args:
        device_kind: the device's name, as ``jax.Device.device_kind`` has it.
        arithmetic: ``bfloat16``, ``float16``, ``tensorfloat32`` or ``float32``.

    Returns:
        FLOP/s of one device; None for a device or an arithmetic that the table does not hold.

    Example:
        >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA A100-SXM4-40GB", "float32")
        (989400000000000.0, 19500000000000.0)
        >>> peak_flops("cpu") is None
        True
    """
    column = _COLUMN.get(arithmetic)
    if column is None or (arithmetic == "bfloat16" and _FLOAT16_ONLY.search(device_kind)):
        return None
    for pattern, *figures in _PEAKS:
        if re.search(pattern, device_kind):
            figure = figures[column]
            return None if figure is None else figure * 1e12
    return None


def arithmetic_of(dtype: Any, platform: str, device_kind: str = "") -> str:
    """In what a device multiplies matrices of a dtype, under JAX's precision setting of now.

    float32 is multiplied in TF32 on GPUs from Ampere on and in bfloat16 on TPUs, unless
    ``jax_default_matmul_precision`` asks for more: a rate must be divided by that figure.

    Args:
        dtype: of the matrices.
        platform: ``cpu``, ``gpu`` or ``tpu``.
        device_kind: the device's name; a GPU that has no TF32 multiplies float32 as it is.

    Returns:
        A name that ``peak_flops`` knows, or the dtype's own.

    Example:
        >>> arithmetic_of("float32", "gpu", "NVIDIA H200"), arithmetic_of("float32", "cpu")
        ('tensorfloat32', 'float32')
    """
    name = jnp.dtype(dtype).name
    if name != "float32" or str(jax.config.jax_default_matmul_precision) in _EXACT:  # pyright: ignore[reportAttributeAccessIssue]
        return name
    if platform == "tpu":
        return "bfloat16"
    has_tf32 = peak_flops(device_kind, "tensorfloat32") or not peak_flops(device_kind, "float32")
    return "tensorfloat32" if platform == "gpu" and has_tf32 else name
