"""A program as it can be read: its jaxpr, its HLO, and the graph of the model's layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from functorch_kit.report.layer_graph import layer_graph


def write_views(
    folder: str | os.PathLike[str],
    *,
    name: str = "program",
    jaxpr: str | None = None,
    hlo: str | None = None,
    summary: Any = None,
) -> list[Path]:
    """Write ``<name>.jaxpr.txt``, ``<name>.hlo.txt`` and ``layers.svg``, those that are given.

    Args:
        folder: where to; made if it is not there.
        name: of the program.
        jaxpr: what was traced.
        hlo: what was compiled.
        summary: a ``program.Summary`` of the model, or its dict.

    Returns:
        The paths.

    Example:
        >>> import tempfile
        >>> [path.name for path in write_views(tempfile.mkdtemp(), jaxpr="{ lambda ; }")]
        ['program.jaxpr.txt']
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{name}.jaxpr.txt": jaxpr,
        f"{name}.hlo.txt": hlo,
        "layers.svg": None if summary is None else layer_graph(summary),
    }
    written: list[Path] = []
    for file, text in texts.items():
        if text:
            (target / file).write_text(f"{text}\n", encoding="utf-8")
            written.append(target / file)
    return written
