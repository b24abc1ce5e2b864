"""Files of weights of any kind, by what is in them: one file, a folder, or a folder of shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.safetensors_file import read_safetensors
from functorch_kit.interop.torch_file import read_torch

_INDEX_ENDING = ".index.json"
_MOST_INDEX = 16 << 20
# In the order in which a folder is searched: what needs no care first.
NAMES = (
    "model.safetensors",
    f"model.safetensors{_INDEX_ENDING}",
    "params.safetensors",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX_ENDING}",
)
_OF_TORCH = (".bin", ".pt", ".pth", ".ckpt")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file of weights, by the names that they have there.

    They are views of the file: memory is taken where they are used, and not before.

    Args:
        path: a safetensors file, a file of ``torch.save``, an index of shards
            (``model.safetensors.index.json``, ``pytorch_model.bin.index.json``), or a folder with
            one of them under its usual name.

    Raises:
        InteropError: there is none, or one that is damaged or asks for files elsewhere.

    Example:
        >>> import tempfile
        >>> from functorch_kit.interop import write_safetensors
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_safetensors(folder / "model.safetensors", {"bias": np.zeros(3, np.float32)})
        >>> list(read_tensors(folder))
        ['bias']
    """
    path = Path(path)
    if path.is_dir():
        found = [name for name in NAMES if (path / name).exists()]
        if not found:
            raise InteropError(f"folder {str(path)!r} holds no weights: {NAMES[0]} or the like")
        return read_tensors(_inside(path, found[0]))
    if not path.is_file():
        raise InteropError(f"{str(path)!r} does not exist: give a file of weights, or its folder")
    if path.name.endswith(_INDEX_ENDING):
        return _from_shards(path)
    return _from_file(path)


def _from_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in _OF_TORCH:
        return read_torch(path)
    raise InteropError(
        f"{str(path)!r} is no file of weights by its name: .safetensors,"
        f" {', '.join(_OF_TORCH)} or {_INDEX_ENDING} can be read"
    )


def _from_shards(path: Path) -> dict[str, np.ndarray]:
    """Each tensor from the file that the index names, and from no other."""
    try:
        if path.stat().st_size > _MOST_INDEX:
            raise ValueError("it is too long")
        index = json.loads(path.read_text(encoding="utf-8"))
        places: dict[str, Any] = index["weight_map"]
        if not isinstance(places, dict) or not places:
            raise ValueError("it names no tensors")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InteropError(f"{str(path)!r} is no index of weights: {cause}") from None
    shards: dict[str, dict[str, np.ndarray]] = {}
    found: dict[str, np.ndarray] = {}
    for name, file in places.items():
        if not isinstance(file, str):
            raise InteropError(f"{str(path)!r} names no file for {name[:100]!r}")
        if file not in shards:
            shards[file] = _from_file(_inside(path.parent, file))
        if name not in shards[file]:
            raise InteropError(f"{file!r} has no tensor {name[:100]!r}, which its index promises")
        found[name] = shards[file][name]
    return found


def _inside(folder: Path, name: str) -> Path:
    """A file of that very folder: not one below or above it, nor where a link leads."""
    path = folder / name
    if name != Path(name).name or "\0" in name or name in ("", ".", ".."):
        raise InteropError(f"{name[:100]!r} leads out of {str(folder)!r}: files lie side by side")
    if path.is_symlink():
        raise InteropError(f"{str(path)!r} is a link: put the file itself into the folder")
    if not path.is_file():
        raise InteropError(f"{str(path)!r} does not exist, or is no file")
    return path
