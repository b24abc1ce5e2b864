"""Safetensors files: read by our own few lines, which check first and take no memory; and written.

The format: 8 bytes of length, that much JSON (name -> dtype, shape, place), then the numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from functorch_kit.interop.errors import InteropError, library

# Parsed, a header takes up to 25 times its size. Real ones have 100 bytes a tensor.
MOST_HEADER = 8 << 20
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: views of the file, which is read where they are used.

    Everything that the header says is checked before: sizes, that arrays lie in the file one after
    another without overlap, and that nothing is left over.

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
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MOST_HEADER):
                raise InteropError(f"{str(path)!r} is no safetensors file: its header does not fit")
            header = _parsed(path, file.read(length))
        content = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except OSError as error:
        raise InteropError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    return _arrays(path, header, content[8 + length :])


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands there twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        line = cause.splitlines()[0]
        raise InteropError(f"the header of {str(path)!r} cannot be read: {line}") from None
    if not isinstance(header, dict):
        raise InteropError(f"the header of {str(path)!r} is not a table of tensors")
    header.pop("__metadata__", None)
    return header


def _arrays(path: Path, header: dict[str, Any], content: np.ndarray) -> dict[str, np.ndarray]:
    places = []
    for name, entry in header.items():
        try:
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
            begin, end = entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise _wrong(path, name, "is not described") from None
        whole = [begin, end, *shape] if isinstance(shape, list) else [None]
        if any(type(number) is not int or number < 0 for number in whole) or len(shape) > 32:
            raise _wrong(path, name, "has a shape or a place that is none")
        if not begin <= end <= content.size or end - begin != math.prod(shape) * dtype.itemsize:
            raise _wrong(path, name, "does not lie in the file")
        places.append((begin, end, name, dtype, shape))
    reached = 0
    for begin, end, name, *_ in sorted(places, key=lambda place: place[:2]):
        if begin != reached:
            raise _wrong(path, name, "overlaps another one, or leaves a gap")
        reached = end
    if reached != content.size:
        raise InteropError(f"{str(path)!r} has bytes that belong to no tensor")
    found: dict[str, np.ndarray] = {}
    for begin, end, name, dtype, shape in places:
        try:
            found[name] = content[begin:end].view(dtype).reshape(shape)
        except ValueError:  # no numbers at all, in a shape of more than there is a count for
            raise _wrong(path, name, "has a shape or a place that is none") from None
    return found


def _wrong(path: Path, name: str, what: str) -> InteropError:
    shown = repr(name if len(name) <= 100 else name[:99] + "…")
    return InteropError(f"{str(path)!r} is damaged: tensor {shown} {what}")


def write_safetensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write arrays into a safetensors file.

    Args:
        path: the file; replaced if it is there.
        tensors: arrays by name.

    Raises:
        InteropError: safetensors is not installed, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_safetensors(path, {"bias": np.zeros(3, np.float32)})
        >>> path.stat().st_size < 200
        True
    """
    library_of = library("safetensors.numpy", "safetensors")
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    whole = {name: value.reshape(np.shape(tensors[name])) for name, value in whole.items()}
    try:
        # transformers reads a file only if it says which library wrote it.
        library_of.save_file(whole, str(path), metadata={"format": "pt"})
    except OSError as error:
        raise InteropError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
