"""A functional deep-learning toolkit on JAX: training is a few pure functions over pytrees.

``fit``, ``compare``, ``compare_steps`` and ``summary`` are the everyday functions; everything else
lives in the namespaces below, which load when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functorch_kit import (
        certify,
        checkpoint,
        config,
        data,
        distributed,
        errors,
        export,
        generation,
        interop,
        losses,
        metrics,
        models,
        nn,
        planning,
        precision,
        program,
        report,
        run,
        supervise,
        sweep,
        train,
        transforms,
        types,
    )
    from functorch_kit.generation import generate
    from functorch_kit.lane import Progress
    from functorch_kit.loop import FitResult, fit
    from functorch_kit.modes import compare_steps
    from functorch_kit.program import compare, summary

__version__ = "0.1.0"

_FUNCTIONS = {
    "fit": "loop",
    "FitResult": "loop",
    "Progress": "lane",
    "generate": "generation",
    "compare": "program",
    "compare_steps": "modes",
    "summary": "program",
}
_NAMESPACES = (
    "certify",
    "checkpoint",
    "config",
    "data",
    "distributed",
    "errors",
    "export",
    "generation",
    "interop",
    "losses",
    "metrics",
    "models",
    "nn",
    "planning",
    "precision",
    "program",
    "report",
    "run",
    "supervise",
    "sweep",
    "train",
    "transforms",
    "types",
)

__all__ = [
    "FitResult",
    "Progress",
    "__version__",
    "certify",
    "checkpoint",
    "compare",
    "compare_steps",
    "config",
    "data",
    "distributed",
    "errors",
    "export",
    "fit",
    "generate",
    "generation",
    "interop",
    "losses",
    "metrics",
    "models",
    "nn",
    "planning",
    "precision",
    "program",
    "report",
    "run",
    "summary",
    "supervise",
    "sweep",
    "train",
    "transforms",
    "types",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
