"""Data sets from arrays: a user's own, and files of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from functorch_kit.data.pipeline import Data, DataError, evaluation, training
from functorch_kit.data.split import stratified_split

_MOST_CLASSES = 1 << 20


def arrays(
    x: ArrayLike,
    y: ArrayLike,
    *,
    batch_size: int,
    seed: int = 0,
    validation: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    class_names: tuple[str, ...] = (),
    name: str = "arrays",
) -> Data:
    """A data set from a user's own arrays.

    Float64 becomes float32 and int64 becomes int32 where JAX runs without 64 bits (its default).

    Args:
        x: inputs, records first (n, ...).
        y: targets, records first: integers (n,) are classes and make the split stratified.
        batch_size: records in a training batch.
        seed: of the training order; the split has its own.
        validation: fraction held out for validation; 0 for none.
        test: fraction held out for the test; 0 for none.
        split_seed: of the split.
        class_names: a name for each class.
        name: of the data set, for titles.

    Raises:
        DataError: lengths that differ, no records, objects or strings in place of numbers, a value
            that is not finite, a negative or an enormous class, fractions that leave no training
            records.

    Example:
        >>> import numpy as np
        >>> from functorch_kit import data
        >>> x, y = np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 5
        >>> parts = data.arrays(x, y, batch_size=16)
        >>> [part.order.count for part in (parts.train, parts.validation, parts.test)]
        [70, 10, 20]
    """
    x, y = _checked("x", x), _checked("y", y)
    if len(x) != len(y):
        raise DataError(f"x has {len(x)} records and y has {len(y)}: they must be as many")
    is_class = np.issubdtype(y.dtype, np.integer) and y.ndim == 1
    if is_class and (y.min() < 0 or y.max() >= _MOST_CLASSES):
        record = int(np.argmax((y < 0) | (y >= _MOST_CLASSES)))
        raise DataError(
            f"record {record} has class {y[record]}: classes count from 0 to {_MOST_CLASSES - 1}; "
            "targets that are no classes must be floats"
        )
    labels = y if is_class else np.zeros(len(y), np.int32)
    parts = stratified_split(labels, validation=validation, test=test, seed=split_seed)
    train_part, *held_out = [{"x": x[part], "y": y[part]} for part in parts]
    # One batch size for both parts: one compiled program evaluates them.
    eval_size = min(512, len(parts[1]) or len(parts[2]))
    return Data(
        training(train_part, batch_size, seed),
        *(evaluation(part, eval_size) if len(part["x"]) else None for part in held_out),
        class_names=class_names or (tuple(map(str, range(int(y.max()) + 1))) if is_class else ()),
        name=name,
    )


def npz(path: str | Path, *, batch_size: int, seed: int = 0, **options) -> Data:
    """A data set from an ``.npz`` file with arrays ``x`` and ``y``.

    Args:
        path: the file, as ``numpy.savez(path, x=x, y=y)`` writes it; pickled objects are refused.
        batch_size: records in a training batch.
        seed: of the training order.
        **options: as for ``arrays``.

    Raises:
        DataError: no such file, not an npz file, no x or y in it, or arrays that cannot be used.

    Example:
        >>> import numpy as np, tempfile, os
        >>> from functorch_kit import data
        >>> path = os.path.join(tempfile.mkdtemp(), "points.npz")
        >>> np.savez(path, x=np.zeros((40, 2)), y=np.arange(40) % 2)
        >>> data.npz(path, batch_size=8).train(0)["x"].shape
        (8, 2)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"data file {str(path)!r} does not exist: give data.path=<file.npz>")
    try:
        if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say to trust it
            raise ValueError("no zip archive")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := {"x", "y"} - set(archive.files):
                names = ", ".join(archive.files) or "nothing"
                raise DataError(
                    f"data file {str(path)!r} lacks {' and '.join(sorted(missing))} "
                    f"(it holds {names}): save it with numpy.savez(path, x=x, y=y)"
                )
            x, y = archive["x"], archive["y"]
    except DataError:
        raise
    except Exception as error:
        # What a damaged archive raises comes from zipfile, zlib, numpy and the file system: there
        # is no list of types that is complete.
        raise DataError(
            f"data file {str(path)!r} is not an .npz file of plain arrays "
            f"({_first_line(error)}): save it with numpy.savez(path, x=x, y=y)"
        ) from error
    return arrays(x, y, batch_size=batch_size, seed=seed, name=path.stem, **options)


def _checked(name: str, values: ArrayLike) -> np.ndarray:
    import jax

    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} is no array: its records differ in shape") from error
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number) or array.ndim == 0:
        raise DataError(
            f"{name} is {array.dtype} of shape {array.shape}: give numbers, one record a row"
        )
    if len(array) == 0:
        raise DataError(f"{name} has no records")
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if np.issubdtype(dtype, np.inexact):
        with np.errstate(over="ignore"):  # 1e300 is finite until it is a float32: reported below
            array = array.astype(dtype)
        if not np.isfinite(array).all():
            finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            record = int(np.argmin(finite))
            raise DataError(f"{name} has a value that is not finite in {dtype} in record {record}")
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        outside = (array < limits.min) | (array > limits.max)
        if outside.any():
            record = int(np.argmax(outside.reshape(len(array), -1).any(axis=1)))
            raise DataError(f"{name} has a number beyond {dtype} in record {record}")
    return np.ascontiguousarray(array, dtype)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
