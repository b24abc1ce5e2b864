"""What one step's folder holds: arrays, meta.json (leaves, versions, meta), manifest."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.checkpoint import arrays, leaves, manifest
from functorch_kit.checkpoint.errors import CheckpointError

_FORMAT = 1
_PACKAGES = ("jax", "jaxlib", "numpy", "orbax-checkpoint")


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def write(
    folder: Path,
    *,
    step: int,
    host: dict[str, np.ndarray],
    records: leaves.Records,
    meta: str,
) -> None:
    """Fill an unpublished folder; ``meta`` is JSON text. The manifest comes after."""
    arrays.write(folder / "arrays", host)
    record = {"format": _FORMAT, "step": step, "versions": _versions(), "leaves": records}
    (folder / "meta.json").write_text(json.dumps({**record, "meta": json.loads(meta)}, indent=1))


def verified(folder: Path, step: int | None = None) -> dict[str, Any]:
    """Verify a step's folder and return the content of its meta.json.

    Raises:
        CheckpointError: a file is not as it was written, the folder holds another step than
            ``step``, or a format of another version.
    """
    sealed = manifest.verify(folder)
    if step is not None and step != sealed["step"]:
        raise CheckpointError(f"{folder} holds step {sealed['step']}: give it its own name back")
    record = json.loads((folder / "meta.json").read_text())
    if record["format"] != _FORMAT:
        raise CheckpointError(
            f"{folder} has format {record['format']}, this version reads {_FORMAT}: update it"
        )
    return record


def load(folder: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Leaf path -> array, exactly as recorded."""
    return arrays.read(folder / "arrays", leaves.host_specs(record["leaves"]))


def read(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read one checkpoint without the code of its model.

    Args:
        folder: one step's folder, such as ``runs/digits/checkpoints/500``.

    Returns:
        Leaf path -> array (typed PRNG keys as their key data), and the ``meta`` it was saved with.

    Raises:
        CheckpointError: the folder is no checkpoint, or names the file that is damaged.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit.checkpoint import Store
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(0, {"head": {"bias": jnp.ones(2)}}, meta={"model": "mlp"})
        ...     store.wait()
        ...     read(store.folder / "0")
        ({'head/bias': array([1., 1.], dtype=float32)}, {'model': 'mlp'})
    """
    folder = Path(folder)
    record = verified(folder)
    return load(folder, record), record["meta"]
