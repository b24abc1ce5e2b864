"""Sources: records by number, whole batches at a time, or refused by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from functorch_kit.data.pipeline import DataError

RecordSpec = dict[str, jax.ShapeDtypeStruct]


class RecordError(DataError):
    """A record that cannot be used; the message names its source, its number and the reason.

    Attributes:
        record: its number.
        reason: what is wrong with it.

    Example:
        >>> print(RecordError("image folder 'cats'", 7, "the file is cut short"))
        image folder 'cats', record 7: the file is cut short
    """

    def __init__(self, where: str, record: int, reason: str):
        super().__init__(f"{where}, record {record}: {reason}")
        self.where = where
        self.record = record
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """What a worker process sends home: the three parts, not the sentence."""
        return type(self), (self.where, self.record, self.reason)


@runtime_checkable
class Source(Protocol):
    """Records that are read by number, a batch at a time.

    A source may also have ``name`` (for titles and messages), ``labels`` (all classes, where they
    cost little), ``class_names``, ``decodes`` (records are worked on one by one) and ``is_fixed``
    (a record is the same whenever it is read, so that it is checked once).

    Example:
        >>> isinstance(ArraySource({"x": np.zeros((3, 2))}), Source)
        True
    """

    def __len__(self) -> int:
        """Number of records."""
        ...

    @property
    def spec(self) -> RecordSpec:
        """Shape and dtype of each part of one record."""
        ...

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,), stacked along a first axis."""
        ...


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Records of arrays in memory, or of memory-mapped ones.

    Attributes:
        arrays: name -> array, the record axis first, all of one length.
        name: for titles and messages.
        class_names: a name for each class; empty for other tasks.

    Example:
        >>> source = ArraySource({"x": np.arange(6).reshape(3, 2)})
        >>> len(source), source.batch(np.array([2, 0]))["x"].tolist()
        (3, [[4, 5], [0, 1]])
    """

    arrays: Mapping[str, np.ndarray]
    name: str = "arrays"
    class_names: tuple[str, ...] = ()
    is_fixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(f"{self.name}: arrays must have one length, above 0, not {lengths}")
        # A plain view of a map: indexing the map itself makes a Python object of each batch.
        views = {name: np.asarray(array) for name, array in self.arrays.items()}
        object.__setattr__(self, "arrays", views)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def spec(self) -> RecordSpec:
        """Shape and dtype of each part of one record."""
        return {
            name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype)
            for name, array in self.arrays.items()
        }

    @property
    def labels(self) -> np.ndarray | None:
        """All classes; None where the targets are none."""
        y = self.arrays.get("y")
        is_class = y is not None and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
        return y if is_class else None

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,)."""
        made = empty(self.spec, len(index))
        self.fill(index, made)
        return made

    def fill(self, index: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """The records with these numbers (n,), written where they are wanted."""
        in_range(self, index)
        for name, array in self.arrays.items():
            # With the range known, `clip` changes nothing and writes without a copy in between.
            np.take(array, index, axis=0, out=out[name], mode="clip")


@dataclasses.dataclass(frozen=True)
class DecodedSource:
    """Records that a function makes one by one: decoding a file, asking another library.

    Attributes:
        count: number of records.
        record: from a record's number to its parts. It raises DataError, or anything, where the
            record cannot be used.
        spec: shape and dtype of each part, which every record must have.
        name: for titles and messages.
        labels: all classes, where they are known without decoding.
        class_names: a name for each class.

    Example:
        >>> square = lambda number: {"x": np.float32(number**2)}
        >>> spec = {"x": jax.ShapeDtypeStruct((), np.float32)}
        >>> DecodedSource(5, square, spec).batch(np.array([3, 1]))["x"].tolist()
        [9.0, 1.0]
    """

    count: int
    record: Callable[[int], Mapping[str, Any]]
    spec: RecordSpec
    name: str = "records"
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    decodes: bool = True

    def __len__(self) -> int:
        return self.count

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,), each as its spec says or refused by number."""
        made = empty(self.spec, len(index))
        self.fill(index, made)
        return made

    def fill(self, index: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """The records with these numbers (n,), written where they are wanted."""
        in_range(self, index)
        for place, number in enumerate(index.tolist()):
            try:
                record = self.record(number)
            except RecordError:
                raise
            except Exception as error:  # a decoder raises what it likes
                raise RecordError(self.name, number, first_line(error)) from error
            for name, leaf in self.spec.items():
                out[name][place] = self._part(record, name, leaf, number)

    def _part(self, record: Any, name: str, leaf: Any, number: int) -> np.ndarray:
        if not isinstance(record, Mapping) or name not in record:
            raise RecordError(self.name, number, f"it has no {name}")
        value = np.asarray(record[name])
        if value.shape != leaf.shape:
            reason = f"{name} has shape {value.shape} where others have {leaf.shape}"
            raise RecordError(self.name, number, reason)
        if value.dtype != leaf.dtype:
            if not np.can_cast(value.dtype, leaf.dtype, "same_kind"):
                reason = f"{name} is {value.dtype} where others are {leaf.dtype}"
                raise RecordError(self.name, number, reason)
            with np.errstate(over="ignore"):  # what becomes infinite is seen by the check
                cast = value.astype(leaf.dtype)
            if np.issubdtype(leaf.dtype, np.integer) and (cast != value).any():
                raise RecordError(self.name, number, f"{name} has a number beyond {leaf.dtype}")
            value = cast
        return value


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some records of a source, numbered anew: a part of a split, or what a filter lets through.

    Attributes:
        source: the whole.
        records: numbers in the whole (n,).

    Example:
        >>> whole = ArraySource({"x": np.arange(10)})
        >>> Subset(whole, np.array([7, 5])).batch(np.array([1]))["x"].tolist()
        [5]
    """

    source: Any
    records: np.ndarray = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def spec(self) -> RecordSpec:
        """Shape and dtype of each part of one record."""
        return self.source.spec

    @property
    def name(self) -> str:
        """That of the whole, whose record numbers messages name."""
        return name_of(self.source)

    def origin(self, number: int) -> tuple[Any, int]:
        """The whole, and a record's number in it."""
        return self.source, int(self.records[number])

    @property
    def decodes(self) -> bool:
        """As the whole does."""
        return getattr(self.source, "decodes", False)

    @property
    def is_fixed(self) -> bool:
        """As the whole is."""
        return getattr(self.source, "is_fixed", False)

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,)."""
        in_range(self, index)
        return self.source.batch(self.records[index])

    def fill(self, index: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """The records with these numbers (n,), written where they are wanted."""
        in_range(self, index)
        fill(self.source, self.records[index], out)


def empty(spec: RecordSpec, count: int) -> dict[str, np.ndarray]:
    """Room for ``count`` records.

    Example:
        >>> empty(ArraySource({"x": np.zeros((3, 2))}).spec, 5)["x"].shape
        (5, 2)
    """
    return {name: np.empty((count, *leaf.shape), leaf.dtype) for name, leaf in spec.items()}


def fill(source: Any, index: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """A batch of any source, written where it is wanted: in place, if the source can do that.

    Example:
        >>> out = {"x": np.zeros(2)}
        >>> fill(ArraySource({"x": np.arange(3.0)}), np.array([2, 1]), out)
        >>> out["x"].tolist()
        [2.0, 1.0]
    """
    if hasattr(source, "fill"):
        source.fill(index, out)
        return
    for name, leaf in source.batch(index).items():
        out[name][...] = leaf


def in_range(source: Any, index: np.ndarray) -> None:
    """Refuse record numbers that a source does not have.

    Raises:
        DataError: for the first of them. Nothing is clamped.

    Example:
        >>> in_range([10, 20, 30], np.array([0, 2]))
    """
    outside = (index < 0) | (index >= len(source))
    if outside.any():
        wrong = int(index[np.argmax(outside)])
        raise DataError(
            f"{name_of(source)} has no record {wrong}: give numbers from 0 to {len(source) - 1}"
        )


def name_of(source: Any) -> str:
    """What messages call a source.

    Example:
        >>> name_of(ArraySource({"x": np.zeros(1)}, name="points"))
        'points'
    """
    return str(getattr(source, "name", type(source).__name__))


def record_of(source: Any, number: int) -> int:
    """A record's number in the file that it came from, whatever parts were taken on the way.

    Example:
        >>> part = Subset(ArraySource({"x": np.arange(9)}), np.array([8, 4]))
        >>> record_of(Subset(part, np.array([1])), 0)
        4
    """
    while isinstance(source, Subset):
        source, number = source.source, int(source.records[number])
    return number


def refused(source: Any, number: int, reason: str) -> RecordError:
    """The error that names a record as its file knows it, whatever parts were taken or joined.

    Example:
        >>> part = Subset(ArraySource({"x": np.arange(9)}, "points"), np.array([8, 4]))
        >>> print(refused(part, 1, "it is bad"))
        points, record 4: it is bad
    """
    while hasattr(source, "origin"):
        source, number = source.origin(number)
    return RecordError(name_of(source), number, reason)


def first_line(error: Exception) -> str:
    r"""An exception in one line.

    Example:
        >>> first_line(ValueError("cut short\nat byte 7")), first_line(KeyError())
        ('cut short', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
