"""Which records stand in which batch: pure functions of (seed, step), in O(batch) time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy import add, bitwise_xor, floor_divide, minimum, multiply, right_shift, subtract

_ROUNDS = 8  # six leave single permutations of 6 records 8 % off; eight are within chance
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GOLDEN_ARRAY = np.array(_GOLDEN)
_SALTS = [np.uint64((2 * half + 1) * int(_GOLDEN) % 2**64) for half in range(_ROUNDS)]
_FURTHER = [np.uint64((int(salt) + int(_GOLDEN)) % 2**64) for salt in _SALTS]
# Arrays of no axes: NumPy takes them in half the time that it takes for its own scalars.
_SHIFTS = [np.array(shift, np.uint64) for shift in (30, 27, 31)]
_FACTORS = [np.array(f, np.uint64) for f in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]


@runtime_checkable
class Order(Protocol):
    """What a pipeline asks of an order.

    Example:
        >>> isinstance(Sequential(count=3, batch_size=2), Order)
        True
    """

    @property
    def count(self) -> int:
        """Number of records."""
        ...

    @property
    def batch_size(self) -> int:
        """Records in a batch."""
        ...

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """``index`` (steps, batch_size), and ``weight`` of the same shape where some is padding."""
        ...


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """An endless stream of epochs, each a fresh permutation of all records, cut in full batches.

    Every record comes exactly once in each epoch; a batch may hold the end of one epoch and the
    beginning of the next. The permutation is a keyed bijection (an additive Feistel network over a
    mixed radix, with cycle walking; Black and Rogaway, 2002), so any step's batch is found without
    shuffling a list, for 10 records and for 10**12.

    Attributes:
        count: number of records.
        batch_size: records in a batch.
        seed: another seed is another stream.
        drop_last: end each epoch with its last full batch, and leave out the few records after it:
            others in each epoch.

    Example:
        >>> order = Shuffled(count=6, batch_size=3, seed=0)
        >>> first_epoch = order.rows(0, 2)["index"]
        >>> sorted(first_epoch.reshape(-1).tolist())
        [0, 1, 2, 3, 4, 5]
        >>> bool((order.rows(1, 1)["index"] == first_epoch[1:]).all())
        True
    """

    count: int
    batch_size: int
    seed: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.drop_last and self.batch_size > self.count:
            raise ValueError(
                f"batch_size is {self.batch_size}, and an epoch has {self.count} records:"
                " drop_last would leave none of them"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, rounded up, or down with ``drop_last``."""
        whole, left = divmod(self.count, self.batch_size)
        return whole if self.drop_last else whole + (left > 0)

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers of ``steps`` batches from step ``start`` on."""
        used = self.count
        if self.drop_last:
            used -= self.count % self.batch_size
        first = start * self.batch_size
        position = np.arange(first, first + steps * self.batch_size, dtype=np.uint64)
        index = shuffled(position, used, self.count, self.seed)
        return {"index": index.reshape(steps, self.batch_size)}


@dataclasses.dataclass(frozen=True)
class Sequential:
    """All records once, in order; the last batch is padded, and padding has weight 0.

    Attributes:
        count: number of records.
        batch_size: records in a batch.

    Example:
        >>> rows = Sequential(count=3, batch_size=2).rows(0, 2)
        >>> rows["index"].tolist(), rows["weight"].tolist()
        ([[0, 1], [2, 0]], [[1.0, 1.0], [1.0, 0.0]])
    """

    count: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of batches that hold all records."""
        return -(-self.count // self.batch_size)

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers and weights of ``steps`` batches from step ``start`` on."""
        first = start * self.batch_size
        position = np.arange(first, first + steps * self.batch_size)
        real = position < self.count
        shape = (steps, self.batch_size)
        return {
            "index": np.where(real, position, 0).reshape(shape),
            "weight": real.astype(np.float32).reshape(shape),
        }


def shuffled(position: np.ndarray, used: int, count: int, seed: int) -> np.ndarray:
    """The records at positions of an endless stream of shuffled epochs.

    Args:
        position: unsigned 64-bit integers (n,).
        used: positions that an epoch takes: all records, or fewer.
        count: number of records.
        seed: another seed is another stream.

    Returns:
        Record numbers (n,), int64.

    Example:
        >>> import numpy as np
        >>> sorted(shuffled(np.arange(5, 10, dtype=np.uint64), 5, 5, seed=0).tolist())
        [0, 1, 2, 3, 4]
    """
    if len(position) == 0:
        return np.zeros(0, np.int64)
    epoch = position // np.uint64(used)
    offset = position - epoch * np.uint64(used)
    # Positions of one epoch, as nearly all batches are, have one key between them.
    epochs = epoch[0] if epoch.min() == epoch.max() else epoch
    return permuted(offset, count, keyed(seed, epochs)).astype(np.int64)


def keyed(seed: int, number: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """A key for each number: of an epoch, say.

    Args:
        seed: another seed is another set of keys.
        number: unsigned 64-bit integers (...).

    Example:
        >>> keyed(0, np.arange(2, dtype=np.uint64)).dtype
        dtype('uint64')
    """
    of_seed = _mix(np.uint64(seed % 2**64))
    if np.ndim(number) == 0:
        return _mix(np.uint64((int(number) + int(of_seed)) % 2**64))
    return _mix(number + of_seed)


def reseeded(order: Any, seed: int) -> Any:
    """The same order of another seed, also where it is inside another one.

    Example:
        >>> reseeded(Shuffled(5, 2, seed=1), 7).seed, reseeded(Sequential(5, 2), 7)
        (7, Sequential(count=5, batch_size=2))
    """
    if hasattr(order, "seeded"):
        return order.seeded(seed)
    names = {field.name for field in dataclasses.fields(order)}
    if "seed" in names:
        return dataclasses.replace(order, seed=seed)
    if "order" in names:
        return dataclasses.replace(order, order=reseeded(order.order, seed))
    return order


def steps_per_epoch(order: Any) -> int:
    """Batches that it takes to see every record of an order, rounded up unless it says otherwise.

    Example:
        >>> steps_per_epoch(Sequential(5, 2)), steps_per_epoch(Shuffled(5, 2, drop_last=True))
        (3, 2)
    """
    own = getattr(order, "steps_per_epoch", None)
    return -(-order.count // order.batch_size) if own is None else own


def permuted(position: np.ndarray, count: int, key: np.ndarray | np.uint64) -> np.ndarray:
    """Where a keyed permutation of ``range(count)`` sends each position.

    Args:
        position: unsigned 64-bit integers below ``count``, shape (n,).
        count: size of the permuted set.
        key: one key for each position (n,), or one for all (); equal keys, same permutation.

    Example:
        >>> import numpy as np
        >>> image = permuted(np.arange(5, dtype=np.uint64), 5, np.uint64(7))
        >>> sorted(image.tolist())
        [0, 1, 2, 3, 4]
    """
    rows = math.isqrt(count - 1) + 1 if count > 1 else 1
    columns = -(-count // rows)
    one_key = np.ndim(key) == 0
    key = np.uint64(key) if one_key else np.asarray(key, np.uint64)
    image = _feistel(position, rows, columns, key)
    # The grid holds fewer than one row more than the records: walking on from outside stays short.
    while (outside := image >= np.uint64(count)).any():
        own = key if one_key else np.asarray(key)[outside]
        image[outside] = _feistel(image[outside], rows, columns, own)
    return image


def keys_of(seed: int, step: np.ndarray, record: np.ndarray) -> np.ndarray:
    """The data of a PRNG key for each record at each step.

    Args:
        seed: another seed is another set of keys.
        step: steps, of a shape that broadcasts against the records'.
        record: record numbers (...).

    Returns:
        Two words for each (..., 2), uint32.

    Example:
        >>> keys = keys_of(0, np.array([[3], [4]]), np.array([[7, 7], [7, 8]]))
        >>> keys.shape, bool((keys[0, 0] == keys[0, 1]).all()), len(np.unique(keys))
        ((2, 2, 2), True, 6)
    """
    step = np.atleast_1d(step).astype(np.uint64)
    word = _mix(_mix(_mix(np.uint64(seed % 2**64)) ^ step) ^ np.asarray(record).astype(np.uint64))
    word = np.ascontiguousarray(np.broadcast_to(word, np.broadcast_shapes(step.shape, word.shape)))
    return word[..., None].view(np.uint32)


def _feistel(
    position: np.ndarray, rows: int, columns: int, key: np.ndarray | np.uint64
) -> np.ndarray:
    """A keyed bijection of a grid.

    A batch is so small that calls of NumPy are what it costs: everything is done in place, and
    remainders by a quotient, which has a vector instruction where the remainder has none.
    """
    rows_, columns_ = (np.array(side, np.uint64) for side in (rows, columns))
    high = position // columns_
    low = position - high * columns_
    word, spare = np.empty_like(high), np.empty_like(high)

    def add_reduced(part: np.ndarray, size: np.ndarray) -> None:
        """``part = (part + word % size) % size``, part being below size."""
        floor_divide(word, size, spare)
        multiply(spare, size, spare)
        subtract(word, spare, word)
        add(part, word, part)
        subtract(part, size, spare)  # wraps around to a huge number where part was below
        minimum(part, spare, out=part)

    for in_low, in_high in _round_keys(key):
        bitwise_xor(low, in_low, word)
        add(word, _GOLDEN_ARRAY, word)
        _scramble(word, spare)
        add_reduced(high, rows_)
        add(high, in_high, word)
        _scramble(word, spare)
        add_reduced(low, columns_)
    multiply(high, columns_, high)
    return add(high, low, high)


def _round_keys(key: np.ndarray | np.uint64) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """What each round mixes into the lower part, and, with `_mix`'s first addend, the higher."""
    if isinstance(key, np.ndarray):
        return [(key ^ salt, key + more) for salt, more in zip(_SALTS, _FURTHER, strict=True)]
    return _round_keys_of(int(key))


@functools.lru_cache(maxsize=256)
def _round_keys_of(key: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    return [
        (np.array(key ^ int(salt), np.uint64), np.array((key + int(more)) % 2**64, np.uint64))
        for salt, more in zip(_SALTS, _FURTHER, strict=True)
    ]


def _scramble(x: np.ndarray, spare: np.ndarray) -> None:
    """What follows the first addition of `_mix`, in place."""
    right_shift(x, _SHIFTS[0], spare)
    bitwise_xor(x, spare, x)
    multiply(x, _FACTORS[0], x)
    right_shift(x, _SHIFTS[1], spare)
    bitwise_xor(x, spare, x)
    multiply(x, _FACTORS[1], x)
    right_shift(x, _SHIFTS[2], spare)
    bitwise_xor(x, spare, x)


def _mix(x: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit of x moves every bit out."""
    if np.ndim(x) == 0:  # one number is mixed sooner without NumPy
        word = (int(x) + int(_GOLDEN)) % 2**64
        word = (word ^ (word >> 30)) * int(_FACTORS[0]) % 2**64
        word = (word ^ (word >> 27)) * int(_FACTORS[1]) % 2**64
        return np.uint64(word ^ (word >> 31))
    mixed = np.asarray(x, np.uint64) + _GOLDEN
    _scramble(mixed, np.empty_like(mixed))
    return mixed
