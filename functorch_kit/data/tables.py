"""Tables: CSV and Parquet files, read by pyarrow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import first_line

_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".parquet")


def read_table(
    path: str | Path, *, target: str | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    r"""The rows of a CSV or Parquet file: numbers to learn from, and one column to predict.

    Args:
        path: ``.csv`` (the first line names the columns), ``.tsv`` or ``.parquet``.
        target: the column to predict; the last one if None. Text, truth values and whole numbers
            are classes, numbered in sorted order; other numbers are regressed.

    Returns:
        ``x`` (n, columns) float32 and ``y``: classes (n,) int32 or targets (n, 1) float32; and the
        names of the classes.

    Raises:
        DataError: no such file or column, one that cannot be parsed, an empty cell, text among
            the numbers, or pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "irises.csv"
        >>> _ = path.write_text("length,width,kind\n5.1,3.5,setosa\n6.2,2.9,versicolor\n")
        >>> parts, names = read_table(path)
        >>> parts["x"].shape, parts["y"].tolist(), names
        ((2, 2), [0, 1], ('setosa', 'versicolor'))
    """
    arrays, classes, _ = read_columns(path, target)
    return arrays, classes


def read_columns(
    path: str | Path, target: str | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """As ``read_table``, with the names of the columns that ``x`` is made of."""
    path = Path(path)
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError("tables are read by pyarrow: pip install 'functorch_kit[data]'")
    if not path.is_file():
        raise DataError(f"table {str(path)!r} does not exist: give data.path=<.csv or .parquet>")
    if not path.name.lower().endswith(_SUFFIXES):
        raise DataError(f"table {str(path)!r} is none of {', '.join(_SUFFIXES)}: rename it")
    table = _parsed(path)
    names = table.column_names
    if len(set(names)) != len(names):
        raise DataError(f"table {str(path)!r} has two columns of one name: rename one")
    chosen = str(names[-1] if names else "") if target is None else target
    if chosen not in names:
        raise DataError(
            f"table {str(path)!r} has no column {chosen!r}: data.target is one of"
            f" {', '.join(names[:20])}"
        )
    if len(names) < 2 or table.num_rows == 0:
        raise DataError(
            f"table {str(path)!r} has {table.num_rows} rows and {len(names)} columns:"
            " it takes one row and two columns at least"
        )
    columns = tuple(name for name in names if name != chosen)
    x = np.stack([_numbers(table, name, path) for name in columns], axis=1)
    y, classes = _target(table, chosen, path)
    return {"x": x, "y": y}, classes, columns


def _parsed(path: Path) -> Any:
    import pyarrow
    from pyarrow import csv, parquet

    try:
        if path.suffix.lower() == ".parquet":
            return parquet.read_table(path)
        options = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return csv.read_csv(path, parse_options=options)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"table {str(path)!r} cannot be read ({first_line(error)}): mend that line or save it"
            " again"
        ) from error


def _numbers(table: Any, name: str, path: Path) -> np.ndarray:
    from pyarrow import types

    column = table.column(name)
    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        if types.is_string(kind) or types.is_large_string(kind):
            row, text = _first_text(column)
            raise DataError(
                f"table {str(path)!r}, record {row}: {name} is {text!r}, which is no number:"
                " mend it, or leave the column out"
            )
        raise DataError(f"table {str(path)!r}: column {name} is {kind}: leave it out")
    _no_empty_cells(column, name, path)
    with np.errstate(over="ignore"):
        values = column.to_numpy().astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(
            f"table {str(path)!r}, record {row}: {name} is not finite in float32: mend it"
        )
    return values


def _target(table: Any, name: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    from pyarrow import types

    column = table.column(name)
    _no_empty_cells(column, name, path)
    if types.is_floating(column.type):
        return _numbers(table, name, path)[:, None], ()
    values = np.array([str(value) for value in column.to_pylist()])
    if types.is_integer(column.type):
        numbers = np.unique(column.to_numpy())
        names = tuple(str(number) for number in numbers.tolist())
        return np.searchsorted(numbers, column.to_numpy()).astype(np.int32), names
    kinds, y = np.unique(values, return_inverse=True)
    return y.astype(np.int32), tuple(kinds.tolist())


def _no_empty_cells(column: Any, name: str, path: Path) -> None:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(
            f"table {str(path)!r}, record {row}: {name} is empty ({column.null_count} such):"
            " fill it or leave the record out"
        )


def _first_text(column: Any) -> tuple[int, Any]:
    """The first cell that keeps a column from being numbers."""
    for row, value in enumerate(column.to_pylist()):
        try:
            float(value)
        except (TypeError, ValueError):
            return row, value
    return 0, column[0].as_py()
