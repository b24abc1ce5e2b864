"""PyTorch's libraries, where they are installed."""

from __future__ import annotations

import importlib
from typing import Any


def torchvision_models() -> Any:
    """``torchvision.models``; raises ImportError where it is missing.

    A torchvision whose wheel was built against another build of PyTorch (there is none for the CPU
    alone) brings no operators, and its import fails for want of two. These models need neither:
    they are declared here, so that the rest can be imported.
    """
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        torch: Any = importlib.import_module("torch")
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # with it, the declaration would go
        return importlib.import_module("torchvision.models")


_KEPT: list[Any] = []
