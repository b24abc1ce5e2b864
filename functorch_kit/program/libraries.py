"""Which libraries a compiled program calls: cuDNN, cuBLAS, oneDNN, YNNPACK, Eigen and others."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import jax
from jax.stages import Compiled

from functorch_kit.program.executable import Program
from functorch_kit.program.hlo import Instruction, hlo_text, read_module

# What the target of a custom call, or the kind of a custom fusion, says of its library.
_LIBRARIES = (
    (r"__cublas\$lt|cublas_?lt", "cuBLASLt"),
    (r"cublas", "cuBLAS"),
    (r"cudnn", "cuDNN"),
    (r"cusolver", "cuSOLVER"),
    (r"cusparse", "cuSPARSE"),
    (r"cutlass", "CUTLASS"),
    (r"nvshmem|nccl", "NCCL"),
    (r"triton", "Triton"),
    (r"mosaic|tpu_custom_call", "Mosaic"),
    (r"onednn", "oneDNN"),
    (r"ynn", "YNNPACK"),
    (r"xnn", "XNNPACK"),
    (r"lapack", "LAPACK"),
    (r"ducc|fft", "FFT"),
    (r"hipblas|rocblas|miopen|hipsolver", "ROCm"),
    (r"callback", "Python callback"),
)
# Marks that XLA leaves for itself.
_NO_CALL = frozenset(
    """
    Sharding SPMDFullToShardShape SPMDShardToFullShape AllocateBuffer annotate_device_placement
    MoveToHost MoveToDevice xla.sdy.FuncResultSharding TopK PartialReduce LayoutConstraint
    Barrier SliceToDynamic PadToStatic __gpu$TopK
    """.split()
)
_EIGEN = {"dot": "Eigen", "convolution": "Eigen", "fft": "FFT"}


def library_calls(compiled: Any, *, platform: str | None = None) -> dict[str, int]:
    """Count the instructions of a compiled program that call a library.

    A call inside a loop counts once. On a CPU a matrix product or a convolution that stands alone
    is Eigen's (XLA writes a loop of its own for tiny ones, which the text does not tell apart);
    inside an ordinary fusion it is XLA's own code and does not count.

    Args:
        compiled: a ``Program``, a ``jax.stages.Compiled``, or the text of its optimized HLO.
        platform: ``cpu``, ``gpu`` or ``tpu``; None asks the program, or JAX's default for a text.

    Returns:
        Library -> instructions, the most frequent first; a custom call of no known library stands
        under its own target. Empty where the backend gives no text.

    Example:
        >>> library_calls('''HloModule jit_f
        ... ENTRY %main (a: f32[8,8]) -> f32[8,8] {
        ...   %a = f32[8,8]{1,0} parameter(0)
        ...   %b = f32[8,8]{1,0} custom-call(%a, %a), custom_call_target="__cublas$lt$matmul"
        ...   ROOT %c = f32[8,8]{1,0} custom-call(%b), custom_call_target="mine"
        ... }''')
        {'cuBLASLt': 1, 'mine': 1}
    """
    module = read_module(hlo_text(compiled))
    on_cpu = (platform or _platform(compiled)) == "cpu"
    fused = {
        name
        for each in module.instructions.values()
        if each.opcode == "fusion"
        for name in each.called
    }
    found: Counter[str] = Counter()
    for each in module.instructions.values():
        library = _library(each)
        if library is None and on_cpu and each.computation not in fused:
            library = _EIGEN.get(each.opcode)
        if library is not None:
            found[library] += 1
    return dict(found.most_common())


def _library(instruction: Instruction) -> str | None:
    target = instruction.target
    if not target or target in _NO_CALL:
        return None
    for pattern, library in _LIBRARIES:
        if re.search(pattern, target, re.IGNORECASE):
            return library
    # A fusion's own kinds (``__loop`` …) are XLA's; a custom call is somebody's.
    return target if instruction.opcode == "custom-call" else None


def _platform(compiled: Any) -> str:
    if isinstance(compiled, Program):
        return compiled.report.platform
    if isinstance(compiled, Compiled):
        leaves = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
        for sharding in leaves:
            return next(iter(sharding.device_set)).platform
    return jax.default_backend()
