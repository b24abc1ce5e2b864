"""Other libraries' data sets as sources: PyTorch, Hugging Face, Grain. None of them is imported."""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import DecodedSource, RecordError, first_line
from functorch_kit.data.streamed import canonical


class Turns:
    """A lock that every process has for itself.

    Example:
        >>> with Turns().lock:
        ...     pass
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, ()


@dataclasses.dataclass(frozen=True)
class _Items:
    """``dataset[number]`` as named parts; it can be sent to a worker process if the data can."""

    dataset: Any
    x: str | int
    y: str | int | None
    decode: Callable[[Any], Any] | None = None
    turns: Turns | None = None

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        if self.turns is None:
            item = self.dataset[number]
        else:
            with self.turns.lock:
                item = self.dataset[number]
        if self.decode is not None:
            item = self.decode(item)
        if isinstance(item, Mapping) and not isinstance(self.x, str):
            return {name: np.asarray(value) for name, value in item.items()}
        parts = {"x": _part(item, self.x)}
        if self.y is not None:
            parts["y"] = _part(item, self.y)
        return parts


def _part(item: Any, key: Any) -> np.ndarray:
    if isinstance(item, Mapping):
        if key not in item:
            raise DataError(f"it has no {key!r}, only {', '.join(map(str, item))}")
    elif not isinstance(item, tuple | list):
        if key != 0:
            raise DataError(f"it is a {type(item).__name__}, not a pair of x and y")
        return _array(item)
    elif not isinstance(key, int) or key >= len(item):
        raise DataError(f"it has {len(item)} parts, and part {key!r} is asked for")
    return _array(item[key])


def _array(value: Any) -> np.ndarray:
    # A tensor of PyTorch, an image of Pillow and a number are all arrays to NumPy.
    array = np.asarray(value)
    return array[..., None] if hasattr(value, "getbands") and array.ndim == 2 else array


def items(
    dataset: Any,
    *,
    x: str | int = 0,
    y: str | int | None = 1,
    decode: Callable[[Any], Any] | None = None,
    classes: int | Sequence[str] | None = None,
    name: str | None = None,
    concurrent: bool = False,
) -> DecodedSource:
    """Anything with a length and ``dataset[i]``: a PyTorch ``Dataset``, a list of pairs.

    Args:
        dataset: ``dataset[i]`` is a pair, a tuple, or a dict.
        x: which part is the input: a place, or a name where records are dicts. Dicts without a
            name to look for are taken whole: every part under its own name.
        y: which part is the target; None for none.
        decode: applied to ``dataset[i]`` first: from bytes to arrays, say.
        classes: number or names of the classes, where ``y`` is one; None: the data set's own
            ``classes`` if it has them.
        name: for titles and messages; that of the data set's type if None.
        concurrent: whether several threads may ask for records at once. Few data sets promise
            that (one that seeks in an open file does not survive it), so threads take turns.

    Returns:
        A source; every record must have the shapes and dtypes of the first one.

    Raises:
        DataError: no records, or a first record that is no pair of arrays.

    Example:
        >>> pairs = [(np.full(2, float(i), np.float32), i % 2) for i in range(4)]
        >>> source = items(pairs, classes=2)
        >>> batch = source.batch(np.array([3, 0]))
        >>> batch["x"].tolist(), batch["y"].tolist(), source.class_names
        ([[3.0, 3.0], [0.0, 0.0]], [1, 0], ('0', '1'))
    """
    name = name or type(dataset).__name__
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"{name} has no length: records are asked for by number, so give a data set with"
            " __len__ and __getitem__"
        ) from error
    if count == 0:
        raise DataError(f"{name} has no records")
    record = _Items(dataset, x, y, decode, None if concurrent else Turns())
    try:
        first = {part: np.asarray(value) for part, value in record(0).items()}
    except Exception as error:
        raise RecordError(name, 0, first_line(error)) from error
    for part, value in first.items():
        if not np.issubdtype(value.dtype, np.number):
            reason = f"{part} is {value.dtype}: give decode= that makes numbers of it"
            raise RecordError(name, 0, reason)
    spec = {
        part: jax.ShapeDtypeStruct(value.shape, canonical(value.dtype))
        for part, value in first.items()
    }
    return DecodedSource(
        count, record, spec, name, class_names=_class_names(dataset, classes, spec.get("y"))
    )


def hugging_face(
    dataset: Any,
    *,
    x: str,
    y: str | None = "label",
    decode: Callable[[Any], Any] | None = None,
    classes: int | Sequence[str] | None = None,
) -> DecodedSource:
    """A Hugging Face ``datasets.Dataset``, its columns by name.

    Args:
        dataset: the data set: one split, not a dict of them.
        x: the column of inputs.
        y: the column of targets; None for none.
        decode: applied to each record, a dict, first.
        classes: number or names of the classes; None: those of the column's ``ClassLabel``.

    Returns:
        A source, see ``items``.

    Raises:
        DataError: a dict of splits, a column that is not there, or records that are no arrays.

    Example:
        >>> class Columns(list):  # what the toolkit asks of such a data set
        ...     column_names = ["pixels", "label"]
        >>> rows = Columns({"pixels": [0.0, float(i)], "label": i} for i in range(3))
        >>> hugging_face(rows, x="pixels", classes=3).batch(np.array([2]))["x"].tolist()
        [[0.0, 2.0]]
    """
    columns = getattr(dataset, "column_names", None)
    if isinstance(dataset, Mapping) or isinstance(columns, Mapping):
        splits = ", ".join(map(str, dataset))
        raise DataError(f"the data set is a dict of splits ({splits}): give one of them")
    if columns is not None and decode is None:
        for name in (x, y):
            if name is not None and name not in columns:
                raise DataError(f"the data set has no column {name!r}: it has {', '.join(columns)}")
    if classes is None and y is not None:
        feature = (getattr(dataset, "features", None) or {}).get(y)
        classes = getattr(feature, "names", None)
    return items(dataset, x=x, y=y, decode=decode, classes=classes, name="hugging_face")


def array_record(
    path: str | Path | Sequence[str | Path],
    *,
    decode: Callable[[bytes], Any],
    x: str | int = 0,
    y: str | int | None = 1,
    classes: int | Sequence[str] | None = None,
) -> DecodedSource:
    """Records of ArrayRecord files, read by Grain.

    Args:
        path: a file, a list of them, or a folder of ``.array_record`` files.
        decode: from a record's bytes to a pair or a dict of arrays.
        x: see ``items``, as for the next two.
        y: which part is the target.
        classes: number or names of the classes.

    Returns:
        A source, see ``items``.

    Raises:
        DataError: no such file, none in the folder, a damaged one, or Grain is not installed.

    Example:
        >>> try:
        ...     array_record("no/such.array_record", decode=bytes)
        ... except DataError as error:
        ...     print(error)
        record file 'no/such.array_record' does not exist: give a file, or a folder of them
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if len(paths) == 1 and Path(paths[0]).is_dir():
        paths = sorted(Path(paths[0]).glob("*.array_record*"))
    missing = [each for each in paths if not Path(each).is_file()]
    if missing or not paths:
        wrong = str(missing[0] if missing else path)
        raise DataError(f"record file {wrong!r} does not exist: give a file, or a folder of them")
    if importlib.util.find_spec("grain") is None:
        raise DataError("ArrayRecord is read by Grain: pip install 'functorch_kit[data]'")
    from grain import sources

    try:
        records = sources.ArrayRecordDataSource([str(each) for each in paths])
        name = Path(paths[0]).name
        return items(records, x=x, y=y, decode=decode, classes=classes, name=name, concurrent=True)
    except DataError:
        raise
    except Exception as error:  # what a damaged file raises comes from C++
        raise DataError(
            f"record file {str(paths[0])!r} cannot be read ({first_line(error)}): write it again"
        ) from error


def _class_names(dataset: Any, classes: Any, y: Any) -> tuple[str, ...]:
    if y is None or y.shape != () or not np.issubdtype(y.dtype, np.integer):
        return ()
    classes = getattr(dataset, "classes", None) if classes is None else classes
    if classes is None:
        raise DataError(
            "y is a whole number, which is a class: say how many there are with classes=, or make"
            " it a float"
        )
    return tuple(map(str, range(classes) if isinstance(classes, int) else classes))
