"""Files that ``torch.save`` has written: today's zip archive, and the plain stream before 1.6.

No pickle is loaded (see ``torch_pickle``), nothing is unpacked, and the numbers are views of the
file, which is read where they are used.
"""

from __future__ import annotations

import math
import struct
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.torch_pickle import MOST_BYTES, Storage, StoredTensor, read_table

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MOST_DIRECTORY = 16 << 20
_NESTED_UNDER = ("state_dict", "model", "model_state_dict")


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file such as ``pytorch_model.bin`` or ``resnet18-f37072fd.pth``.

    Args:
        path: the file, which holds a ``state_dict``, or a dict with one under ``state_dict``,
            ``model`` or ``model_state_dict``. What else is in it is left out.

    Raises:
        InteropError: a file that cannot be read, is no such file, or asks for more than tensors.

    Example:
        >>> read_torch("no-such-file.bin")
        Traceback (most recent call last):
        functorch_kit...InteropError: 'no-such-file.bin' cannot be read: No such file or directory
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                table, places = _from_zip(file, size)
            else:
                table, places = _from_stream(file, size)
        content = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
        return {
            name: _view(name, tensor, places, content) for name, tensor in _tensors(table).items()
        }
    except InteropError as error:
        raise InteropError(
            f"{str(path)!r} is no file of weights that can be read: {error}"
        ) from None
    except OSError as error:
        raise InteropError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


Places = dict[str, tuple[int, int]]
"""Key of a storage -> where in the file its bytes begin, and how many they are."""


def _tensors(table: Any) -> dict[str, StoredTensor]:
    if not isinstance(table, dict):
        raise InteropError("it holds no dict of tensors")
    found = {
        name: value
        for name, value in table.items()
        if isinstance(name, str) and isinstance(value, StoredTensor)
    }
    inner = [table[name] for name in _NESTED_UNDER if isinstance(table.get(name), dict)]
    if not found and inner and table is not inner[0]:
        return _tensors({key: value for key, value in inner[0].items() if key not in _NESTED_UNDER})
    if not found:
        raise InteropError("it holds no tensors")
    return found


def _view(name: str, tensor: StoredTensor, places: Places, content: np.ndarray) -> np.ndarray:
    storage, count = tensor.storage, math.prod(tensor.shape)
    begin, room = places.get(storage.key, (0, -1))
    if room != storage.length * storage.dtype.itemsize:
        raise InteropError(f"the numbers of tensor {name[:100]!r} are missing or cut off")
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > 32 or not count:
        raise InteropError(f"tensor {name[:100]!r} has a shape that is none")
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    # Nor more numbers than there are: one of them could stand for as many as one likes.
    if last >= storage.length or count > storage.length:
        raise InteropError(f"tensor {name[:100]!r} reaches beyond its numbers")
    row = content[begin : begin + room].view(storage.dtype)[tensor.offset :]
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(row, tensor.shape, strides, writeable=False)


def _from_stream(file: BufferedIOBase, size: int) -> tuple[Any, Places]:
    """A magic number, a version, facts of the machine, the table, the keys, then the numbers."""
    if read_table(file) != _MAGIC or read_table(file) != _VERSION:
        raise InteropError("PyTorch has not written it")
    facts = read_table(file)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise InteropError("its numbers are written the other way round")
    storages: dict[str, Storage] = {}
    table, keys = read_table(file, storages), read_table(file)
    places: Places = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages or key in places:
            raise InteropError("its list of numbers is not that of its tensors")
        head = file.read(8)
        begin, count = file.tell(), int.from_bytes(head, "little")
        room = count * storages[key].dtype.itemsize
        if len(head) < 8 or room > size - begin:
            raise InteropError("its end is missing")
        places[key] = begin, room
        file.seek(begin + room)
    return table, places


def _from_zip(file: BufferedIOBase, size: int) -> tuple[Any, Places]:
    """``<name>/data.pkl``, the table, and ``<name>/data/<key>``, the numbers; nothing is packed."""
    entries = _entries(file, size)
    tables = [name for name in entries if name.endswith("/data.pkl")]
    if len(tables) != 1:
        raise InteropError("its archive has no table of tensors, or several")
    folder = tables[0].removesuffix("data.pkl")
    if (order := entries.get(f"{folder}byteorder")) and _content(file, *order) != b"little":
        raise InteropError("its numbers are written the other way round")
    begin, room = entries[tables[0]]
    if room > MOST_BYTES:
        raise InteropError("its table of tensors is too long")
    file.seek(begin)
    table = read_table(file)
    start = f"{folder}data/"
    return table, {
        name.removeprefix(start): place for name, place in entries.items() if name.startswith(start)
    }


def _content(file: BufferedIOBase, begin: int, room: int) -> bytes:
    file.seek(begin)
    return file.read(min(room, 64))


def _entries(file: BufferedIOBase, size: int) -> Places:
    """Where the members of an archive lie, by its directory at the end; packed ones are refused."""
    file.seek(max(size - 22, 0))
    end = file.read(22)
    if len(end) < 22 or end[:4] != b"PK\x05\x06":
        raise InteropError("the directory of its archive is missing")
    count, length, begin = struct.unpack("<HLL", end[10:20])
    if 0xFFFFFFFF in (length, begin) or count == 0xFFFF:
        count, length, begin = _large_directory(file, size)
    if length > min(size, _MOST_DIRECTORY) or begin > size - length:
        raise InteropError("the directory of its archive does not fit")
    file.seek(begin)
    rows, found, at = file.read(length), {}, 0
    for _ in range(min(count, len(rows) // 46)):
        method, packed, room, names, extras, remark, start = _member(rows, at)
        name = rows[at + 46 : at + 46 + names].decode("utf-8", "replace")
        extra = rows[at + 46 + names : at + 46 + names + extras]
        at += 46 + names + extras + remark
        packed, room, start = _in_64_bits(extra, packed, room, start)
        if method != 0 or packed != room:
            raise InteropError(f"member {name[:100]!r} of its archive is packed")
        if name in found:
            raise InteropError(f"member {name[:100]!r} of its archive stands there twice")
        found[name] = _behind_header(file, start, room, size)
    return found


def _member(rows: bytes, at: int) -> tuple[int, ...]:
    if rows[at : at + 4] != b"PK\x01\x02" or len(rows) < at + 46:
        raise InteropError("the directory of its archive is damaged")
    method = struct.unpack_from("<H", rows, at + 10)[0]
    packed, room, names, extras, remark = struct.unpack_from("<LLHHH", rows, at + 20)
    return method, packed, room, names, extras, remark, struct.unpack_from("<L", rows, at + 42)[0]


def _large_directory(file: BufferedIOBase, size: int) -> tuple[int, int, int]:
    file.seek(max(size - 42, 0))
    locator = file.read(20)
    if locator[:4] != b"PK\x06\x07":
        raise InteropError("the directory of its archive is missing")
    file.seek(min(struct.unpack_from("<Q", locator, 8)[0], size))
    record = file.read(56)
    if record[:4] != b"PK\x06\x06" or len(record) < 56:
        raise InteropError("the directory of its archive is missing")
    count, length, begin = struct.unpack_from("<QQQ", record, 32)
    return count, length, begin


def _in_64_bits(extra: bytes, packed: int, room: int, start: int) -> tuple[int, int, int]:
    """Sizes of 4 GiB and more stand in a field of their own, those that do, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = list(struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8]))
            given = iter(value for (value,) in wide)
            room, packed, start = (
                next(given, value) if value == 0xFFFFFFFF else value
                for value in (room, packed, start)
            )
        at += 4 + length
    return packed, room, start


def _behind_header(file: BufferedIOBase, start: int, room: int, size: int) -> tuple[int, int]:
    file.seek(min(start, size))
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise InteropError("a member of its archive is missing")
    begin = start + 30 + sum(struct.unpack_from("<HH", header, 26))
    if room > size - begin:
        raise InteropError("a member of its archive is cut off")
    return begin, room
