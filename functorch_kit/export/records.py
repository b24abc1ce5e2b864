"""Records to predict, from files: ``.npy``, images and folders of them, CSV, text.

They come one by one, so that memory does not grow with the file, and each is checked against what
the artifact says of its records.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from functorch_kit.data import Inputs, Vocabulary, decode_image
from functorch_kit.data.images import IMAGE_SUFFIXES
from functorch_kit.data.mapped import npy_region
from functorch_kit.export.errors import ArtifactError

MOST_PIXELS = 1 << 24
"""Of an image: decoders take up to 16 bytes for each."""
_MOST_LINE = 1 << 20
_MOST_DIGITS = 100
_TABLES = {".csv": ",", ".tsv": "\t"}


class Record(NamedTuple):
    """One record.

    Attributes:
        name: its place in the file, or the name of its own.
        x: what the artifact takes.
        last: of a text: the position of its last token; the rest is padding.
    """

    name: str
    x: np.ndarray
    last: int = 0


def read_records(
    path: str | Path,
    inputs: Inputs,
    vocabulary: Vocabulary | None = None,
    *,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[Record]:
    r"""The records in a file or in a folder of images.

    Args:
        path: ``.npy`` (records first); an image, or a folder of images; ``.csv`` or ``.tsv``, the
            first line of which names the columns; ``.txt``, a record a line.
        inputs: what a record is.
        vocabulary: of a language model.
        most_pixels: that an image may have.

    Yields:
        A Record, each of the shape and dtype of ``inputs``.

    Raises:
        UserError: no such file, one that cannot be read, or records of another kind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "years.csv"
        >>> _ = path.write_text("name,year\na,1999\nb,2001\n")
        >>> years = Inputs("table", (1,), "float32", columns=("year",))
        >>> [(record.name, record.x.tolist()) for record in read_records(path, years)]
        [('1', [1999.0]), ('2', [2001.0])]
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path, inputs, most_pixels)
    if not path.is_file():
        raise ArtifactError(
            f"input {str(path)!r} does not exist: give a file or a folder of images"
        )
    if suffix == ".npy":
        return _npy(path, inputs, None if vocabulary is None else len(vocabulary))
    if suffix in IMAGE_SUFFIXES:
        return iter([_image(path, inputs, most_pixels)])
    if suffix in _TABLES:
        return _table(path, inputs)
    if suffix == ".txt":
        return _texts(path, inputs, vocabulary)
    raise ArtifactError(
        f"input {str(path)!r} is none of .npy, .csv, .tsv, .txt or an image: save it as one"
    )


def text_record(name: str, text: str, inputs: Inputs, vocabulary: Vocabulary | None) -> Record:
    """A text as a record: its last tokens, as many as the model takes, and padding after them.

    Raises:
        UserError: the artifact is no language model, or the text has no tokens.

    Example:
        >>> from functorch_kit.data import Characters
        >>> record = text_record("1", "abba", Inputs("text", (3,), "int32"), Characters("ab"))
        >>> record.x.tolist(), record.last
        ([1, 1, 0], 2)
    """
    if vocabulary is None:
        raise ArtifactError(f"the artifact takes records of kind {inputs.kind}, and no text")
    (context,) = inputs.shape
    tokens = vocabulary.encode(text)[-context:]
    if len(tokens) == 0:
        raise ArtifactError(f"text {name} has no tokens: give some to go on with")
    x = np.zeros(context, np.dtype(inputs.dtype))
    x[: len(tokens)] = tokens
    return Record(name, x, len(tokens) - 1)


def _npy(path: Path, inputs: Inputs, tokens: int | None) -> Iterator[Record]:
    region = npy_region(path)
    dtype = np.dtype(inputs.dtype)
    if region.shape[1:] != inputs.shape or region.shape[0] == 0:
        raise ArtifactError(
            f"input {str(path)!r} has shape {region.shape!s:.100}, and records of {inputs.shape}"
            " are wanted, in an array with one more axis"
        )
    if not _may_become(region.dtype, dtype):
        raise ArtifactError(
            f"input {str(path)!r} is {region.dtype}, and the artifact takes {dtype}: convert it"
        )
    if 0 in region.shape:
        raise ArtifactError(f"input {str(path)!r} has shape {region.shape}: it has no numbers")
    array = np.memmap(region.path, region.dtype, "r", region.offset, region.shape)
    for number, row in enumerate(array):
        yield Record(str(number), _cast(row, dtype, path, number, tokens), row.size - 1)


def _image(path: Path, inputs: Inputs, most_pixels: int) -> Record:
    if inputs.kind != "image" or len(inputs.shape) != 3:
        raise ArtifactError(
            f"input {str(path)!r} is an image, and the artifact takes records of kind"
            f" {inputs.kind}: give a .npy file"
        )
    height, width, channels = inputs.shape
    x = decode_image(path, (height, width), channels, most_pixels=most_pixels)
    if inputs.dtype != "uint8":
        x = (x / np.float32(255)).astype(np.dtype(inputs.dtype))
    return Record(path.name, x)


def _folder(path: Path, inputs: Inputs, most_pixels: int) -> Iterator[Record]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ArtifactError(f"folder {str(path)!r} holds no images: give one that does")
    for file in files:
        if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
            raise ArtifactError(f"{str(file)!r} leads out of its folder, or is no file: remove it")
        yield _image(file, inputs, most_pixels)


def _table(path: Path, inputs: Inputs) -> Iterator[Record]:
    if inputs.kind not in ("table", "array") or len(inputs.shape) != 1:
        raise ArtifactError(
            f"input {str(path)!r} is a table, and the artifact takes records of kind"
            f" {inputs.kind} and shape {inputs.shape}"
        )
    (count,) = inputs.shape
    rows = _rows(path, _TABLES[path.suffix.lower()])
    try:
        header = next(rows, [])
        columns = inputs.columns or tuple(header)
        missing = [name for name in columns if name not in header]
        if missing or len(columns) != count:
            what = f"lacks column {missing[0]!r}" if missing else f"has {len(columns)} columns"
            raise ArtifactError(
                f"input {str(path)!r} {what}: its first line names the {count} that the artifact"
                " takes"
            )
        places = [header.index(name) for name in columns]
        number = 0
        for row in rows:
            if not row:
                continue
            number += 1
            if len(row) != len(header):
                raise ArtifactError(
                    f"input {str(path)!r}, record {number}: {len(row)} cells, and"
                    f" {len(header)} columns: mend it"
                )
            yield Record(str(number), _numbers([row[place] for place in places], path, number))
    except csv.Error as error:
        raise ArtifactError(f"input {str(path)!r} cannot be read ({error}): mend it") from error


def _rows(path: Path, delimiter: str) -> Iterator[list[str]]:
    # Line by line: one cell in quotes after another would make one row of the whole file.
    for line in _lines(path):
        yield from csv.reader([line], delimiter=delimiter, strict=True)


def _numbers(cells: list[str], path: Path, number: int) -> np.ndarray:
    try:
        if max(map(len, cells), default=0) > _MOST_DIGITS:
            raise ValueError(f"a cell has more than {_MOST_DIGITS} characters")
        values = np.array([float(cell) for cell in cells], np.float64)
    except ValueError as error:
        raise ArtifactError(
            f"input {str(path)!r}, record {number}: {str(error)[:100]}: give numbers alone"
        ) from None
    return _cast(values, np.dtype(np.float32), path, number)


def _texts(path: Path, inputs: Inputs, vocabulary: Vocabulary | None) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), 1):
        if words := line.removesuffix("\n").removesuffix("\r"):
            yield text_record(str(number), words, inputs, vocabulary)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text, none of which may fill the memory."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            number = 0
            while line := file.readline(_MOST_LINE + 1):
                number += 1
                if len(line) > _MOST_LINE:
                    raise ArtifactError(
                        f"line {number} of input {str(path)!r} is longer than {_MOST_LINE}"
                        " characters: is it a text?"
                    )
                yield line
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"input {str(path)!r} is not UTF-8 (byte {error.start}): save it in UTF-8"
        ) from error
    except OSError as error:
        raise ArtifactError(f"input {str(path)!r} cannot be read: {error.strerror}") from error


def _may_become(given: np.dtype, wanted: np.dtype) -> bool:
    kinds = {"f": "f", "i": "iu", "u": "iu"}
    if wanted == np.uint8:  # bytes of an image: other whole numbers may mean something else
        return given == wanted
    return given == wanted or given.kind in kinds.get(wanted.kind, "")


def _cast(
    row: Any, dtype: np.dtype, path: Path, number: int, tokens: int | None = None
) -> np.ndarray:
    """A record in the artifact's dtype, where it fits in it."""
    what = f"input {str(path)!r}, record {number}:"
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = limits.min, limits.max if tokens is None else tokens - 1
        least = least if tokens is None else 0
        if int(row.min()) < least or int(row.max()) > most:
            raise ArtifactError(f"{what} a number is outside {least} to {most}: mend it")
        return np.ascontiguousarray(row, dtype)
    with np.errstate(over="ignore"):  # said below
        values = np.ascontiguousarray(row, dtype)
    if not np.isfinite(values).all():
        raise ArtifactError(f"{what} a number is not finite in {dtype}: mend it")
    return values
