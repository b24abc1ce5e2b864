"""Orders made of others: mixtures of data sets, curricula, and one process's share of a batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from functorch_kit.data.order import keyed, permuted, reseeded, shuffled, steps_per_epoch
from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import RecordSpec, in_range, name_of

_PERIOD = 10_000


@dataclasses.dataclass(frozen=True)
class Mixture:
    """An endless stream drawn from several data sets in given proportions.

    Of every 10,000 records in a row, each data set gives its share to the record, in shuffled
    places; each of its own records comes once before any of them comes again. Records are numbered
    through: those of the second data set follow those of the first, as in ``Joined``. Any step's
    batch is found in O(batch).

    Attributes:
        counts: number of records of each data set.
        weights: share of each; they need not add up to 1.
        batch_size: records in a batch.
        seed: another seed is another stream.

    Raises:
        DataError: shares that are no positive numbers, or as many as there are data sets.

    Example:
        >>> index = Mixture((5, 1000), (0.75, 0.25), batch_size=100).rows(0, 100)["index"]
        >>> int((index < 5).sum()), len(np.unique(index[index >= 5]))
        (7500, 1000)
    """

    counts: tuple[int, ...]
    weights: tuple[float, ...]
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.weights) or not self.counts:
            raise DataError(
                f"a mixture of {len(self.counts)} data sets has {len(self.weights)} weights:"
                " give one for each"
            )
        if not all(math.isfinite(w) and w > 0 for w in self.weights):
            raise DataError(f"weights are {self.weights}: give numbers above 0")
        if min(self.counts) < 1 or self.batch_size < 1:
            raise DataError("a mixture needs data sets with records and batches of one at least")
        if min(self._quotas) < 1:
            raise DataError(
                f"weights are {self.weights}: the smallest is less than one record in {_PERIOD}"
            )

    @property
    def count(self) -> int:
        """Records of all data sets together."""
        return sum(self.counts)

    @property
    def _quotas(self) -> list[int]:
        """Records of each data set in a period, by largest remainders."""
        shares = [_PERIOD * weight / sum(self.weights) for weight in self.weights]
        quotas = [math.floor(share) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda k: quotas[k] - shares[k])
        for k in by_remainder[: _PERIOD - sum(quotas)]:
            quotas[k] += 1
        return quotas

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers of ``steps`` batches from step ``start`` on."""
        first = start * self.batch_size
        position = np.arange(first, first + steps * self.batch_size, dtype=np.uint64)
        period, offset = np.divmod(position, np.uint64(_PERIOD))
        slot = permuted(offset, _PERIOD, keyed(self.seed, period)).astype(np.int64)
        ends = np.cumsum(self._quotas)
        which = np.searchsorted(ends, slot, side="right")
        index = np.empty(len(position), np.int64)
        base = 0
        for k, (count, quota) in enumerate(zip(self.counts, self._quotas, strict=True)):
            mine = which == k
            # A slot stands for one of this data set's places in the period: none is left out.
            place = period[mine].astype(np.int64) * quota + slot[mine] - (ends[k] - quota)
            own_seed = self.seed + (k + 1) * 0x9E3779B97F4A7C15
            index[mine] = base + shuffled(place.astype(np.uint64), count, count, own_seed)
            base += count
        return {"index": index.reshape(steps, self.batch_size)}


class Joined:
    """Several sources as one, numbered through; what a ``Mixture`` draws from.

    Args:
        *sources: all of one spec.

    Raises:
        DataError: no sources, or records that differ in shape or dtype.

    Example:
        >>> from functorch_kit.data import ArraySource
        >>> one, two = (ArraySource({"x": np.arange(n)}) for n in (3, 5))
        >>> Joined(one, two).batch(np.array([4, 0]))["x"].tolist()
        [1, 0]
    """

    def __init__(self, *sources: Any):
        if not sources:
            raise DataError("give at least one source to join")
        for other in sources[1:]:
            if other.spec != sources[0].spec:
                raise DataError(
                    f"records of {name_of(other)} are not like those of {name_of(sources[0])}:"
                    f" {_in_words(other.spec)}, not {_in_words(sources[0].spec)}"
                )
        self.sources = sources
        self.name = " + ".join(map(name_of, sources))
        self.is_fixed = all(getattr(each, "is_fixed", False) for each in sources)
        self.decodes = any(getattr(each, "decodes", False) for each in sources)
        self.class_names = max((getattr(s, "class_names", ()) for s in sources), key=len)
        self._ends = np.cumsum([len(each) for each in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def spec(self) -> RecordSpec:
        """Shape and dtype of each part of one record."""
        return self.sources[0].spec

    def digest(self) -> list[Any]:
        """What makes two of them the same."""
        return list(self.sources)

    def origin(self, number: int) -> tuple[Any, int]:
        """The source that a record comes from, and its number there."""
        k = int(np.searchsorted(self._ends, number, side="right"))
        return self.sources[k], number - int(self._ends[k]) + len(self.sources[k])

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The records with these numbers (n,)."""
        in_range(self, index)
        which = np.searchsorted(self._ends, index, side="right")
        made = {
            name: np.empty((len(index), *leaf.shape), leaf.dtype)
            for name, leaf in self.spec.items()
        }
        for k in np.unique(which).tolist():
            mine = which == k
            base = int(self._ends[k]) - len(self.sources[k])
            for name, leaf in self.sources[k].batch(index[mine] - base).items():
                made[name][mine] = leaf
        return made


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Orders one after another, each from a step of its own on: what is easy first, say.

    Which order a step has is a function of the step alone. Each order counts its own steps from 0
    where it begins; it may be a ``Mixture`` of other shares, or the order of a filtered part, see
    ``Among``.

    Attributes:
        stages: (first step, order) pairs; the first begins at 0, and batches are all of one size.

    Raises:
        DataError: no stages, a first one that begins later, steps that do not rise, or batches of
            several sizes.

    Example:
        >>> from functorch_kit.data import Shuffled
        >>> easy, all_ = Among(np.array([7, 8]), Shuffled(2, 2)), Shuffled(10, 2)
        >>> rows = Curriculum(((0, easy), (3, all_))).rows(2, 2)["index"]
        >>> sorted(rows[0].tolist()), bool((rows[1] == all_.rows(0, 1)["index"][0]).all())
        ([7, 8], True)
    """

    stages: tuple[tuple[int, Any], ...]

    def __post_init__(self) -> None:
        begins = [begin for begin, _ in self.stages]
        if not begins or begins[0] != 0 or any(b <= a for a, b in itertools.pairwise(begins)):
            raise DataError(f"stages begin at steps {begins}: give 0 first, then rising ones")
        sizes = {order.batch_size for _, order in self.stages}
        if len(sizes) != 1:
            raise DataError(f"stages have batches of {sorted(sizes)} records: give one size")
        if any(getattr(order, "steps", None) is not None for _, order in self.stages):
            raise DataError("a stage has an end (Sequential): give endless orders")

    def seeded(self, seed: int) -> Curriculum:
        """The same stages, each in the order of another seed."""
        return Curriculum(tuple((begin, reseeded(order, seed)) for begin, order in self.stages))

    @property
    def count(self) -> int:
        """Records that the largest of the stages numbers."""
        return max(order.count for _, order in self.stages)

    @property
    def batch_size(self) -> int:
        """Records in a batch."""
        return self.stages[0][1].batch_size

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers of ``steps`` batches from step ``start`` on."""
        parts: list[np.ndarray] = []
        begins = [begin for begin, _ in self.stages]
        for (begin, order), end in zip(self.stages, [*begins[1:], math.inf], strict=True):
            first, last = max(start, begin), min(start + steps, end)
            if first < last:
                parts.append(order.rows(first - begin, int(last) - first)["index"])
        empty = np.zeros((0, self.batch_size), np.int64)
        return {"index": np.concatenate([empty, *parts])}


@dataclasses.dataclass(frozen=True)
class Among:
    """An order of some of the records, by their numbers in the whole: an index made beforehand.

    Attributes:
        records: the numbers of those (n,), from ``numpy.flatnonzero(keep)``, say.
        order: of ``n`` records.
        total: records in the whole; None: as many as the largest number says.

    Example:
        >>> from functorch_kit.data import Shuffled
        >>> sorted(Among(np.array([3, 9]), Shuffled(2, 2)).rows(0, 1)["index"][0].tolist())
        [3, 9]
    """

    records: np.ndarray = dataclasses.field(repr=False)
    order: Any
    total: int | None = None

    def __post_init__(self) -> None:
        if len(self.records) != self.order.count or len(self.records) == 0:
            raise DataError(
                f"{len(self.records)} records, and an order of {self.order.count}: make the order"
                " with as many, one at least"
            )

    @property
    def count(self) -> int:
        """Records in the whole."""
        return int(self.records.max()) + 1 if self.total is None else self.total

    @property
    def batch_size(self) -> int:
        """Records in a batch."""
        return self.order.batch_size

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return getattr(self.order, "steps", None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that it takes to see each of them."""
        return steps_per_epoch(self.order)

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers of ``steps`` batches from step ``start`` on."""
        rows = self.order.rows(start, steps)
        return {**rows, "index": self.records[rows["index"]]}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One process's rows of each batch of an order: with those of the others, exactly the batch.

    The order knows nothing of how many processes there are, so the stream is the same for all
    numbers of them.

    Attributes:
        order: of whole batches.
        process: the number of this process.
        processes: how many there are; the batch size is a multiple of it.

    Raises:
        DataError: a process that there is not, or a batch that cannot be shared out evenly.

    Example:
        >>> from functorch_kit.data import Shuffled
        >>> whole = Shuffled(9, 4)
        >>> parts = [Shard(whole, process, 2).rows(3, 1)["index"] for process in (0, 1)]
        >>> bool((np.concatenate(parts, axis=1) == whole.rows(3, 1)["index"]).all())
        True
    """

    order: Any
    process: int
    processes: int

    def __post_init__(self) -> None:
        if not 0 <= self.process < self.processes:
            raise DataError(
                f"process {self.process} of {self.processes}: they count from 0 to"
                f" {self.processes - 1}"
            )
        if self.order.batch_size % self.processes:
            raise DataError(
                f"batch_size is {self.order.batch_size}: {self.processes} processes must divide it"
            )

    @property
    def count(self) -> int:
        """Records of all processes."""
        return self.order.count

    @property
    def global_batch_size(self) -> int:
        """Records of all processes in a batch."""
        return self.order.batch_size

    @property
    def batch_size(self) -> int:
        """Records of this process in a batch."""
        return self.order.batch_size // self.processes

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return getattr(self.order, "steps", None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that it takes all processes together to see every record."""
        return steps_per_epoch(self.order)

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers and weights of ``steps`` batches from step ``start`` on."""
        own = slice(self.process * self.batch_size, (self.process + 1) * self.batch_size)
        return {name: leaf[:, own] for name, leaf in self.order.rows(start, steps).items()}


def shard(pipeline: Any, process: int, processes: int) -> Any:
    """A pipeline that reads one process's rows of each batch.

    Args:
        pipeline: of whole batches: a ``Pipeline``, ``Streamed``, ``Windows``, ``Packed``, or a
            ``Transformed`` one of these, whose keys stay those of the records.
        process: the number of this process.
        processes: how many there are.

    Example:
        >>> from functorch_kit.data import training
        >>> pipeline = training({"x": np.arange(8)}, 4, seed=0)
        >>> parts = [shard(pipeline, process, 2)(5)["x"] for process in (0, 1)]
        >>> np.concatenate(parts).tolist() == pipeline(5)["x"].tolist()
        True
    """
    if not hasattr(type(pipeline), "__dataclass_fields__"):
        kind = type(pipeline).__name__
        raise DataError(f"a {kind} cannot be shared out: share out the pipeline that it is made of")
    if hasattr(pipeline, "inner"):
        inner = shard(pipeline.inner, process, processes)
        return dataclasses.replace(pipeline, inner=inner)
    return dataclasses.replace(pipeline, order=Shard(pipeline.order, process, processes))


def _in_words(spec: RecordSpec) -> str:
    return ", ".join(
        f"{name} {np.dtype(leaf.dtype)} {leaf.shape}" for name, leaf in sorted(spec.items())
    )
