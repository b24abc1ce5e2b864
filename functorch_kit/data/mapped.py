"""Memory-mapped ``.npy`` and ``.npz``: the file stays where it is, batches are gathered from it."""

from __future__ import annotations

import ast
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import ArraySource, RecordSpec, first_line


class Region(NamedTuple):
    """Where an array lies in a file.

    Attributes:
        path: the file.
        offset: its first byte.
        dtype: of its numbers.
        shape: of the array, records first.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class MappedSource:
    """Records of arrays that stay in their files; see ``ArraySource``.

    Sent to a worker process, it takes the places along and not the numbers.

    Args:
        regions: name -> where the array lies.
        name: for titles and messages.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(6.0).reshape(3, 2))
        >>> MappedSource({"x": npy_region(path)}).batch(np.array([2, 0]))["x"].tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    is_fixed = True

    def __init__(self, regions: Mapping[str, Region], name: str = "arrays"):
        self.regions = dict(regions)
        self.name = name
        self._opened = ArraySource(
            {part: _mapped(region) for part, region in self.regions.items()}, name
        )

    def __getstate__(self) -> tuple[Any, ...]:
        return self.regions, self.name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)

    def digest(self) -> list[str]:
        """What makes two of them the same: the files as they are now, without reading them."""
        stats = [region.path.stat() for region in self.regions.values()]
        files = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats]
        return [*map(str, sorted(self.regions.items())), *files]

    def __len__(self) -> int:
        return len(self._opened)

    @property
    def spec(self) -> RecordSpec:
        """Shape and dtype of each part of one record."""
        return self._opened.spec

    @property
    def labels(self) -> np.ndarray | None:
        """All classes; None where the targets are none."""
        return self._opened.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """None are known."""
        return ()

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,)."""
        return self._opened.batch(index)

    def fill(self, index: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """The records with these numbers (n,), written where they are wanted."""
        self._opened.fill(index, out)


def mapped(path: str | Path) -> MappedSource:
    """A source of arrays in files, none of which is read before a batch asks for it.

    Args:
        path: a folder with ``x.npy`` and, say, ``y.npy``; one ``.npy`` file, which is ``x``; or an
            ``.npz`` file that ``numpy.savez`` wrote (not ``savez_compressed``).

    Raises:
        DataError: no such file, none that can be mapped, or one that is cut short.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "x.npy", np.zeros((4, 2), np.float32))
        >>> np.save(folder / "y.npy", np.arange(4))
        >>> source = mapped(folder)
        >>> len(source), source.labels.tolist()
        (4, [0, 1, 2, 3])
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.npy"))
        if not files:
            raise DataError(f"folder {str(path)!r} holds no .npy file: save x.npy and y.npy in it")
        return MappedSource({file.stem: npy_region(file) for file in files}, path.name)
    if not path.is_file():
        raise DataError(f"data file {str(path)!r} does not exist: give data.path=<file or folder>")
    if zipfile.is_zipfile(path):
        return MappedSource(_npz_regions(path), path.stem)
    return MappedSource({"x": npy_region(path)}, path.stem)


def npy_region(path: Path) -> Region:
    """Where the array of an ``.npy`` file lies.

    Raises:
        DataError: no such file, another format, objects, Fortran order, or a file cut short.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.zeros((3, 2), np.float32))
        >>> npy_region(path).shape, npy_region(path).offset
        ((3, 2), 128)
    """
    try:
        with path.open("rb") as file:
            return _region(file, path, path.stat().st_size)
    except OSError as error:
        raise _unreadable(path, error.strerror or first_line(error)) from error


def _npz_regions(path: Path) -> dict[str, Region]:
    regions: dict[str, Region] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                if member.compress_type != zipfile.ZIP_STORED:
                    raise _unreadable(
                        path, f"{member.filename} is compressed: save it with numpy.savez"
                    )
                # The local header has its own lengths of name and extra field.
                file.seek(member.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
                begin = member.header_offset + 30 + name + extra
                file.seek(begin)
                end = begin + member.file_size
                regions[member.filename.removesuffix(".npy")] = _region(file, path, end)
    except DataError:
        raise
    except Exception as error:  # zipfile, struct and the file system raise what they like
        raise _unreadable(path, first_line(error)) from error
    if not regions:
        raise _unreadable(path, "it holds no arrays")
    return regions


def _region(file: BinaryIO, path: Path, end: int) -> Region:
    """The array whose ``.npy`` header begins here, and which ends at byte ``end`` at most."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or len(magic) < 8:
        raise _unreadable(path, "wrong magic: no .npy header")
    size = file.read(2 if magic[6] == 1 else 4)
    if len(size) not in (2, 4):
        raise _unreadable(path, "its header is cut short")
    length = int.from_bytes(size, "little")
    header = file.read(min(length, 1 << 16))
    try:
        fields = ast.literal_eval(header.decode("latin1"))
        dtype, shape = np.dtype(fields["descr"]), tuple(fields["shape"])
        is_fortran = fields["fortran_order"]
    except Exception as error:
        raise _unreadable(path, "its header cannot be read") from error
    if dtype.hasobject or dtype.names or not np.issubdtype(dtype, np.number):
        raise _unreadable(path, f"it holds {dtype!s:.100}, not numbers")
    if not all(isinstance(side, int) and side >= 0 for side in shape) or not shape:
        raise _unreadable(path, f"its shape is {shape!s:.100}: records come first")
    if is_fortran and len(shape) > 1:
        raise _unreadable(
            path, "its columns come first (Fortran order): save numpy.ascontiguousarray(x)"
        )
    needed = math.prod(shape) * dtype.itemsize
    if (there := end - file.tell()) < needed:
        raise _unreadable(path, f"cut short: its header says {needed} bytes, {there} are there")
    return Region(path, file.tell(), dtype, shape)


def _mapped(region: Region) -> np.ndarray:
    if 0 in region.shape:
        raise _unreadable(region.path, f"its shape is {region.shape}: it has no records")
    try:
        return np.memmap(region.path, region.dtype, "r", region.offset, region.shape)
    except (OSError, ValueError) as error:
        raise _unreadable(region.path, first_line(error)) from error


def _unreadable(path: Path, reason: str) -> DataError:
    remedy = "" if ": save" in reason else ": save it again with numpy.save or numpy.savez"
    return DataError(f"data file {str(path)!r} cannot be mapped ({reason}){remedy}")
