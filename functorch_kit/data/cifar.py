"""CIFAR-10 and CIFAR-100 in their binary form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from functorch_kit.data.idx import read_bytes
from functorch_kit.data.pipeline import DataError

_PIXELS = 3 * 32 * 32


def read_cifar(path: str | Path, *, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The images and the last label of each record of a CIFAR file (Krizhevsky, 2009).

    Args:
        path: the file; gzipped or not.
        labels: bytes before the pixels: 1 in CIFAR-10, 2 in CIFAR-100 (coarse, then fine).

    Returns:
        ``x`` (n, 32, 32, 3) uint8, red, green, blue; ``y`` (n,) uint8.

    Raises:
        DataError: no such file, or bytes that are no whole number of records.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "data_batch_1.bin"
        >>> red = bytes([7]) + bytes([255] * 1024 + [0] * 2048)
        >>> _ = path.write_bytes(red)
        >>> x, y = read_cifar(path)
        >>> x[0, 31, 0].tolist(), y.tolist()
        ([255, 0, 0], [7])
    """
    path, size = Path(path), labels + _PIXELS
    content = read_bytes(path)
    if len(content) == 0 or len(content) % size:
        raise DataError(
            f"CIFAR file {str(path)!r} has {len(content)} bytes, which is {len(content) // size}"
            f" records of {size} bytes and {len(content) % size} over: fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    x = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), records[:, labels - 1].copy()


def cifar_folder(path: str | Path) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """The parts of a folder of CIFAR-10 or CIFAR-100 in binary form, and the class names.

    Args:
        path: a folder with ``data_batch_1.bin`` … and ``test_batch.bin``, or with ``train.bin`` and
            ``test.bin``; names from ``batches.meta.txt`` or ``fine_label_names.txt``.

    Returns:
        Part -> ``x`` and ``y``, see ``read_cifar``; and the names.

    Raises:
        DataError: no such folder, no such files, or a class that the set does not have.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        ...     _ = (folder / name).write_bytes(bytes([3]) + bytes(3072))
        >>> parts, names = cifar_folder(folder)
        >>> parts["train"]["y"].tolist(), parts["test"]["x"].shape, len(names)
        ([3, 3], (1, 32, 32, 3), 10)
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"data folder {str(path)!r} does not exist: give data.path=<folder>")
    batches = _files(path, "data_batch_*.bin")
    is_ten = bool(batches)
    train = batches or _files(path, "train.bin")
    test = _files(path, "test_batch.bin" if is_ten else "test.bin")
    if not train:
        raise DataError(
            f"data folder {str(path)!r} holds neither data_batch_1.bin … of CIFAR-10 nor train.bin"
            " of CIFAR-100: give one with the binary version"
        )
    labels, classes = (1, 10) if is_ten else (2, 100)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part, files in (("train", train), ("test", test)):
        if files:
            read = [_checked(file, *read_cifar(file, labels=labels), classes) for file in files]
            x, y = (np.concatenate(each) for each in zip(*read, strict=True))
            parts[part] = {"x": x, "y": y}
    names = path / ("batches.meta.txt" if is_ten else "fine_label_names.txt")
    found = tuple(names.read_text(encoding="utf-8").split()) if names.is_file() else ()
    return parts, found if len(found) == classes else tuple(map(str, range(classes)))


def _files(folder: Path, pattern: str) -> list[Path]:
    """Of a file that is there packed and unpacked, one."""
    packed = [f for f in folder.glob(f"{pattern}.gz") if not f.with_suffix("").exists()]
    return sorted([*folder.glob(pattern), *packed])


def _checked(
    file: Path, x: np.ndarray, y: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    if y.max() >= classes:
        record = int(np.argmax(y >= classes))
        raise DataError(
            f"CIFAR file {str(file)!r}, record {record}: its class is {y[record]}, but there are"
            f" {classes}: fetch it again"
        )
    return x, y
