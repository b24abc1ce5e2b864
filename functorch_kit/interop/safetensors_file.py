"""Safetensors files of weights: mapped, so that they take no memory; and written for others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit import safetensors
from functorch_kit.interop.errors import InteropError
from functorch_kit.untrusted import FileError


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: views of the file, which is read where they are used.

    Everything that the header says is checked before; see ``safetensors.layout``.

    Args:
        path: the file.

    Raises:
        InteropError: a file that cannot be read, or is not one of this format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_safetensors(path, {"head": np.eye(2, dtype=np.float32)})
        >>> read_safetensors(path)["head"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    what = f"file {str(path)!r}"
    try:
        content = np.memmap(path, np.uint8, "r").view(np.ndarray)
        places, _ = safetensors.layout(content, what)
    except FileError as error:
        raise InteropError(str(error)) from error
    except OSError as error:
        raise InteropError(f"{what} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a file of no bytes cannot be mapped
        raise InteropError(f"{what} is no safetensors file: it is empty") from error
    return {
        name: content[place.begin : place.end].view(place.dtype).reshape(place.shape)
        for name, place in places.items()
    }


def write_safetensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write arrays into a safetensors file.

    Args:
        path: the file; replaced if it is there.
        tensors: arrays by name.

    Raises:
        InteropError: an array that the format has no name for, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_safetensors(path, {"bias": np.zeros(3, np.float32)})
        >>> path.stat().st_size < 200
        True
    """
    try:
        # transformers reads a file only if it says which library wrote it.
        safetensors.write(path, tensors, {"format": "pt"})
    except FileError as error:
        raise InteropError(str(error)) from error
