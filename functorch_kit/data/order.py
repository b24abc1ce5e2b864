"""Which records stand in which batch: pure functions of (seed, step), in O(batch) time."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np

_ROUNDS = 8  # six leave single permutations of 6 records 8 % off; eight are within chance
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SALTS = [np.uint64((2 * half + 1) * int(_GOLDEN) % 2**64) for half in range(_ROUNDS)]


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

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """Record numbers of ``steps`` batches from step ``start`` on."""
        first = start * self.batch_size
        position = np.arange(first, first + steps * self.batch_size, dtype=np.uint64)
        epoch, offset = np.divmod(position, np.uint64(self.count))
        index = permuted(offset, self.count, _mix(epoch + _mix(np.uint64(self.seed % 2**64))))
        return {"index": index.astype(np.int64).reshape(steps, self.batch_size)}


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
    key = np.broadcast_to(key, position.shape)
    image = _feistel(position, rows, columns, key)
    # The grid holds fewer than one row more than the records: walking on from outside stays short.
    while (outside := image >= count).any():
        image[outside] = _feistel(image[outside], rows, columns, key[outside])
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
    step = np.asarray(step).astype(np.uint64)
    word = _mix(_mix(_mix(np.uint64(seed % 2**64)) ^ step) ^ np.asarray(record).astype(np.uint64))
    word = np.ascontiguousarray(np.broadcast_to(word, np.broadcast_shapes(step.shape, word.shape)))
    return word[..., None].view(np.uint32)


def _feistel(position: np.ndarray, rows: int, columns: int, key: np.ndarray) -> np.ndarray:
    high, low = np.divmod(position, np.uint64(columns))
    for salt in _SALTS:
        high = (high + _mix(low ^ key ^ salt) % np.uint64(rows)) % np.uint64(rows)
        low = (low + _mix(high + key + salt) % np.uint64(columns)) % np.uint64(columns)
    return high * np.uint64(columns) + low


def _mix(x: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit of x moves every bit out."""
    x = np.asarray(x, np.uint64)
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
