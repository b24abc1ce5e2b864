"""Which of XLA's options make programs faster on a backend and version, by measurement."""

from __future__ import annotations

import platform
from typing import Any

import jax
from jaxlib import version as jaxlib

# jaxlib 0.10.2 hands convolutions on x86 CPUs to YNNPACK, which runs many of them on one thread and
# takes fresh memory for each. With YNNPACK left to products and sums, on two cores, ms before and
# after: a 3 × 3 convolution 32→64 on (64, 26, 26) 40 and 9, its kernel's gradient 44 and 14;
# functorch's CNN, one gradient, 113 and 53; ResNet-18 at 224², batch 16, 1,540 and 1,470. The small
# GPT has no convolution and stays as it was. jaxlib 0.12 needs nothing of the kind.
_WITHOUT_CONVOLUTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}
_MEASURED = {("cpu", "x86_64", "0.10.2"): _WITHOUT_CONVOLUTIONS}


def measured_options(backend: str | None = None) -> dict[str, Any]:
    """Options that ``compile`` gives to XLA where nothing else was asked for.

    Args:
        backend: such as ``"cpu"``; the default one if None.

    Returns:
        Name -> value; empty where XLA's own choices were not beaten, or nothing was measured.

    Example:
        >>> measured_options("no such backend")
        {}
    """
    backend = jax.default_backend() if backend is None else backend
    machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    return dict(_MEASURED.get((backend, machine, jaxlib.__version__), {}))
