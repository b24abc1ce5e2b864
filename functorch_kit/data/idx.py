"""IDX files, the format of MNIST and its family; gzipped or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from functorch_kit.data.pipeline import DataError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGES, _LABELS = r"images?[-._]idx3", r"labels?[-._]idx1"
_TEST = r"(^|[-_.])(t10k|test|val)([-_.])"


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file (LeCun, Cortes and Burges, 1998).

    Args:
        path: the file; gzipped where it begins like one, whatever its name.

    Raises:
        DataError: no such file, wrong magic, or more or fewer bytes than its header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(path).tolist()
        [7, 2, 1]
    """
    path = Path(path)
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise DataError(
            f"IDX file {str(path)!r} has the wrong magic {content[:4].hex()!r}:"
            " give a file that begins with 0000, a type and a number of axes"
        )
    dtype, axes = np.dtype(_DTYPES[content[2]]), content[3]
    begin = 4 + 4 * axes
    if axes == 0 or len(content) < begin:
        raise DataError(f"IDX file {str(path)!r} is cut short in its header: fetch it again")
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    needed, there = math.prod(shape) * dtype.itemsize, len(content) - begin
    if there != needed:
        what = "cut short" if there < needed else "too long"
        record = dtype.itemsize * math.prod(shape[1:])
        whole = there // record if record else 0
        raise DataError(
            f"IDX file {str(path)!r} is {what}: its header says {shape[0]} records,"
            f" {needed} bytes, and there are {there} ({whole} whole records): fetch it again"
        )
    array = np.frombuffer(content, dtype, offset=begin).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where it is gzipped.

    Raises:
        DataError: it cannot be read, or its gzip stream is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.gz"
        >>> _ = path.write_bytes(gzip.compress(b"abc"))
        >>> read_bytes(path)
        b'abc'
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"file {str(path)!r} is a damaged gzip file ({error}): fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"file {str(path)!r} cannot be read ({error.strerror})") from error


def idx_folder(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The pairs of images and labels in a folder: ``train`` and, where there is one, ``test``.

    Args:
        path: a folder with ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` and perhaps
            ``t10k-…``, each perhaps with ``.gz``, anything before ``images``, and ``.`` for ``-``.

    Returns:
        Part -> ``x`` (n, height, width, 1) uint8 and ``y`` (n,) uint8.

    Raises:
        DataError: no such folder, no pair in it, or images and labels that differ in number.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> head = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2])
        >>> _ = (folder / "train-images-idx3-ubyte").write_bytes(head + bytes([1, 2, 3, 4]))
        >>> labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 9, 5])
        >>> _ = (folder / "train-labels-idx1-ubyte").write_bytes(labels)
        >>> idx_folder(folder)["train"]["x"].reshape(2, 2).tolist()
        [[1, 2], [3, 4]]
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"data folder {str(path)!r} does not exist: give data.path=<folder>")
    parts: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        for name, pattern in (("x", _IMAGES), ("y", _LABELS)):
            if re.search(pattern, file.name):
                part = "test" if re.search(_TEST, file.name) else "train"
                known = parts.setdefault(part, {}).setdefault(name, file)
                # Packed and unpacked beside each other are the same file; the first one counts.
                if known.name.removesuffix(".gz") != file.name.removesuffix(".gz"):
                    raise DataError(
                        f"data folder {str(path)!r} holds {known.name} and {file.name}: keep the"
                        " files of one data set in it"
                    )
    if "train" not in parts:
        raise DataError(
            f"data folder {str(path)!r} holds no pair of IDX files:"
            " give one with train-images-idx3-ubyte and train-labels-idx1-ubyte, or these with .gz"
        )
    return {part: _pair(path, part, files) for part, files in parts.items()}


def _pair(folder: Path, part: str, files: dict[str, Path]) -> dict[str, np.ndarray]:
    for name, what in (("x", "images"), ("y", "labels")):
        if name not in files:
            raise DataError(
                f"data folder {str(folder)!r} has no {what} of the {part} part beside"
                f" {next(iter(files.values())).name}: add them"
            )
    x, y = read_idx(files["x"]), read_idx(files["y"])
    if x.ndim != 3 or y.ndim != 1:
        raise DataError(
            f"IDX files {files['x'].name} and {files['y'].name} have {x.ndim} and {y.ndim} axes:"
            " images have 3, labels 1"
        )
    if len(x) != len(y):
        raise DataError(
            f"IDX files {files['x'].name} and {files['y'].name} hold {len(x)} images and"
            f" {len(y)} labels: they must be as many"
        )
    if len(x) == 0:
        raise DataError(f"IDX file {str(files['x'])!r} has no records: give one that has some")
    return {"x": x[..., None], "y": y}
