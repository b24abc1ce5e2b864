"""Arrays in files: the safetensors format, read without trust.

Eight bytes of length, a JSON header that says where each array lies, then the arrays, one after the
other. Nothing in such a file can be run. What the header says is checked before an array is made:
a file whose arrays overlap, leave gaps or reach beyond its end is refused, so every byte belongs to
one array and the arrays of a file never take more memory than the file.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from functorch_kit.untrusted import MOST_JSON, FileError, parse_json, read_plain

_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
    "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"
_MOST_AXES = 32
_MOST_NUMBERS = 1 << 48


class Place(NamedTuple):
    """Where an array lies among the bytes of a file.

    Attributes:
        dtype: of its numbers.
        shape: of the array.
        begin: its first byte, counted from the beginning of the file.
        end: the byte after its last.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read(
    path: str | Path, *, size: int | None = None, sha256: str | None = None
) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file.

    Args:
        path: of the file.
        size: bytes that it must have, where that is known.
        sha256: of its bytes, in hexadecimal digits, where that is known.

    Returns:
        Name -> array; together they take the memory of the file.

    Raises:
        FileError: no such file, or one that is no safetensors file of plain numbers.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.safetensors"
        >>> write(path, {"a": np.arange(3), "b": np.ones((2, 2), ml_dtypes.bfloat16)})
        >>> found = read(path)
        >>> found["a"].tolist(), found["b"].dtype, found["b"].shape
        ([0, 1, 2], dtype(bfloat16), (2, 2))
    """
    content = read_plain(path, size=size, sha256=sha256)
    what = f"file {str(path)!r}"
    places, _ = layout(content, what)
    arrays: dict[str, np.ndarray] = {}
    for name, place in places.items():
        numbers = content[place.begin : place.end]
        if place.dtype == bool and numbers.max(initial=0) > 1:
            raise _wrong(what, f"{_short(name)} has truth values that are neither 0 nor 1")
        arrays[name] = numbers.view(place.dtype).reshape(place.shape)
    return arrays


def layout(content: np.ndarray, what: str) -> tuple[dict[str, Place], dict[str, str]]:
    """What the header says, checked: where each array lies, and the words beside them.

    Args:
        content: the bytes of the file, uint8; only the header is looked at.
        what: the file, for messages.

    Returns:
        Name -> place, in the order of the file; and name -> text, from ``__metadata__``.

    Raises:
        FileError: anything that the format does not allow.

    Example:
        >>> content = np.frombuffer(as_bytes({"a": np.zeros((2, 3), np.float32)}), np.uint8)
        >>> layout(content, "this")[0]["a"].shape
        (2, 3)
        >>> try:
        ...     layout(content[:-1], "this")
        ... except FileError as error:
        ...     print(error)
        this is no safetensors file: its arrays take 24 bytes, and 23 are there
    """
    size = len(content)
    length = int.from_bytes(content[:8].tobytes(), "little")
    if size < 8 or length > size - 8:
        raise _wrong(what, f"its header should have {length} bytes, and {max(size - 8, 0)} follow")
    if length > MOST_JSON:
        raise _wrong(what, f"its header has {length} bytes, and {MOST_JSON} are read at most")
    header = parse_json(content[8 : 8 + length].tobytes(), f"the header of {what}")
    if not isinstance(header, dict):
        raise _wrong(what, "its header is no list of names")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _wrong(what, f"{_METADATA} is no list of texts")
    places = {name: _place(name, entry, 8 + length, what) for name, entry in header.items()}
    end = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != end:
            gap = "overlaps another array" if place.begin < end else "leaves a gap before it"
            raise _wrong(what, f"{_short(name)} {gap}")
        end = place.end
    if end != size:
        there = size - 8 - length
        raise _wrong(what, f"its arrays take {end - 8 - length} bytes, and {there} are there")
    return places, metadata


def write(
    path: str | Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as a safetensors file.

    Args:
        path: of the file.
        arrays: by name; of NumPy's and JAX's numbers up to 64 bits.
        metadata: texts to keep beside them.

    Raises:
        FileError: an array that the format has no name for; or the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> write(path, {"a": np.zeros(2, np.float32)}, {"format": "np"})
        >>> path.stat().st_size % 8
        0
    """
    header, ordered = _header(arrays, metadata)
    try:
        with open(path, "wb") as file:
            file.write(header)
            for array in ordered:
                file.write(_bytes(array))
    except OSError as error:
        raise FileError(f"file {str(path)!r} cannot be written: {error.strerror}") from error


def as_bytes(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that ``write`` writes.

    Example:
        >>> as_bytes({"a": np.zeros(1, np.float32)})[8:42]
        b'{"a":{"dtype":"F32","shape":[1],"d'
    """
    header, ordered = _header(arrays, metadata)
    return b"".join([header, *(bytes(_bytes(array)) for array in ordered)])


def _header(
    arrays: Mapping[str, Any], metadata: Mapping[str, str] | None
) -> tuple[bytes, list[np.ndarray]]:
    made = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in made.items():
        if array.dtype not in _NAMES:
            raise FileError(f"array {name!r} is {array.dtype}, for which safetensors has no name")
    # The widest first: every array begins at a multiple of its own width.
    names = sorted(made, key=lambda name: (-made[name].dtype.itemsize, name))
    entries: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + made[name].nbytes
        entries[name] = {
            "dtype": _NAMES[made[name].dtype],
            "shape": list(made[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [made[name] for name in names]


def _bytes(array: np.ndarray) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return flat.view(np.uint8).data


def _place(name: str, entry: Any, start: int, what: str) -> Place:
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise _wrong(what, f"{_short(name)} is not said by dtype, shape and data_offsets alone")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise _wrong(what, f"{_short(name)} has no dtype of plain numbers")
    dtype = np.dtype(_DTYPES[kind])
    if not _are_counts(shape) or len(shape) > _MOST_AXES:
        raise _wrong(what, f"{_short(name)} has no shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _wrong(what, f"{_short(name)} has no place")
    # Sides are limited one by one first, so that the product of thirty is no number of thousands
    # of digits; zeros must not hide the others, which NumPy multiplies all the same.
    if max(shape, default=0) > _MOST_NUMBERS or math.prod(map(_one_or_more, shape)) > _MOST_NUMBERS:
        raise _wrong(what, f"{_short(name)} is larger than any file")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise _wrong(
            what, f"{_short(name)} is {kind} {shape}, and its place has {end - begin} bytes"
        )
    return Place(dtype, tuple(shape), start + begin, start + end)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _one_or_more(side: int) -> int:
    return max(side, 1)


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:59]}…")


def _wrong(what: str, reason: str) -> FileError:
    return FileError(f"{what} is no safetensors file: {reason}")
