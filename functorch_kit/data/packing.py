"""Documents of any length, packed side by side into windows of one: ``batch = packed(step)``."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import Order, Sequential, Shuffled, reseeded, steps_per_epoch
from functorch_kit.data.pipeline import Data, DataError
from functorch_kit.data.text import Characters
from functorch_kit.types import Batch, Spec

_RESIDENT_BYTES = 1 << 30
_EVALUATION_TOKENS = 8192


@dataclasses.dataclass(frozen=True)
class PackingIndex:
    """Which pieces of which documents stand in which window, S at most, in this order.

    Numbers count tokens of all documents one after another.

    Attributes:
        start: first token of a piece (windows, S).
        length: tokens in the piece, 0 where there is none (windows, S).
        end: where the piece's document ends (windows, S).

    Example:
        >>> index = pack([3, 2, 4], context=5)
        >>> index.start.tolist(), index.length.tolist()
        ([[5, 0], [0, 3]], [[4, 0], [3, 2]])
    """

    start: np.ndarray
    length: np.ndarray
    end: np.ndarray


def pack(lengths: Sequence[int] | np.ndarray, context: int) -> PackingIndex:
    """Pack documents into windows: the longest first, each where it leaves the least room.

    A document longer than a window is cut: its first tokens fill windows of their own, and the rest
    is packed like a short one. Best fit decreasing (Johnson, 1974) takes at most 11/9 of the fewest
    windows possible, and on documents of many lengths hardly more than these.

    Args:
        lengths: tokens in each document (documents,), from 1 up.
        context: tokens in a window.

    Raises:
        DataError: no documents, an empty one, or a context below 1.

    Example:
        >>> index = pack([7, 1, 2], context=4)
        >>> index.length.tolist()
        [[4, 0], [3, 1], [2, 0]]
    """
    lengths = np.asarray(lengths, np.int64)
    if context < 1:
        raise DataError(f"context is {context}: give a whole number from 1 up")
    if len(lengths) == 0:
        raise DataError("there are no documents to pack: give at least one")
    if lengths.min() < 1:
        raise DataError(f"document {int(np.argmin(lengths))} is empty: leave it out")
    ends = np.cumsum(lengths)
    starts = ends - lengths
    windows: list[list[tuple[int, int, int]]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        full = range(start, end - context + 1, context)
        windows += [[(first, context, end)] for first in full]
    left = lengths % context
    room: list[tuple[int, int]] = []  # (tokens left, window), sorted
    for document in np.argsort(-left, kind="stable")[: np.count_nonzero(left)].tolist():
        size, end = int(left[document]), int(ends[document])
        place = bisect.bisect_left(room, (size, 0))
        free, window = room.pop(place) if place < len(room) else (context, len(windows))
        if window == len(windows):
            windows.append([])
        windows[window].append((end - size, size, end))
        if free > size:
            bisect.insort(room, (free - size, window))
    pieces = np.zeros((3, len(windows), max(map(len, windows))), np.int64)
    for number, window in enumerate(windows):
        pieces[:, number, : len(window)] = np.transpose(window)
    return PackingIndex(*pieces)


@dataclasses.dataclass(frozen=True)
class Packed:
    """Batches of windows in which documents stand side by side.

    It is used like a ``Pipeline``: a pure function of the step and of an index made beforehand. A
    batch's ``x`` is a dict of ``tokens``, ``segments`` (1, 2 … in each window, 0 for padding) and
    ``positions`` (from 0 in each piece), ``y`` the tokens that follow, and ``weight`` is 0 where
    none of the same document does. Where the tokens live on the device, they and the index are the
    ``constant`` and a row is the batch's window numbers.

    Attributes:
        tokens: all documents one after another (n,), int32.
        index: see ``pack``.
        context: tokens in a window, as the index was made for.
        order: which windows stand in which batch.
        resident: whether the tokens live on the device.

    Example:
        >>> import numpy as np
        >>> from functorch_kit.data import Packed, Sequential, pack
        >>> tokens = np.array([10, 11, 12, 20, 21], np.int32)  # of two documents
        >>> packed = Packed(tokens, pack([3, 2], context=6), 6, Sequential(1, 1))
        >>> batch = packed(0)
        >>> [batch["x"][name][0].tolist() for name in ("tokens", "segments", "positions")]
        [[10, 11, 12, 20, 21, 0], [1, 1, 1, 2, 2, 0], [0, 1, 2, 0, 1, 0]]
        >>> batch["y"][0].tolist(), batch["weight"][0].tolist()
        ([11, 12, 0, 21, 0, 0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    """

    tokens: np.ndarray
    index: PackingIndex
    context: int
    order: Order
    resident: bool = True

    def __call__(self, step: int) -> Batch:
        """The batch of one step, on the host."""
        return jax.tree.map(lambda leaf: leaf[0], self._gather(self.order.rows(step, 1)))

    def seeded(self, seed: int) -> Packed:
        """The same windows in the order of another seed."""
        return dataclasses.replace(self, order=reseeded(self.order, seed))

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return getattr(self.order, "steps", None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that it takes to see every window, rounded up."""
        return steps_per_epoch(self.order)

    @property
    def spec(self) -> Spec:
        """Shapes and dtypes of a batch."""
        shape = (self.order.batch_size, self.context)
        integers = jax.ShapeDtypeStruct(shape, jnp.int32)
        x = dict.fromkeys(("tokens", "segments", "positions"), integers)
        return {"x": x, "y": integers, "weight": jax.ShapeDtypeStruct(shape, jnp.float32)}

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        if not self.resident:
            return self.spec
        size = (self.order.batch_size,)
        spec = {"index": jax.ShapeDtypeStruct(size, jnp.int32)}
        if self.steps is not None:
            spec["weight"] = jax.ShapeDtypeStruct(size, jnp.float32)
        return spec

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once."""
        if not self.resident:
            return {}
        index = {name: array.astype(np.int32) for name, array in vars(self.index).items()}
        return {"tokens": self.tokens, **index}

    def rows(self, start: int, steps: int) -> Batch:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        rows = self.order.rows(start, steps)
        if not self.resident:
            return self._gather(rows)
        return {**rows, "index": rows["index"].astype(np.int32)}

    def batch(self, constant: dict[str, jax.Array], row: dict[str, Any]) -> Batch:
        """Join one row with the constant; runs inside the compiled step."""
        if not self.resident:
            return row
        return _windows(jnp, constant, row, self.context)

    def _gather(self, rows: dict[str, np.ndarray]) -> Batch:
        return _windows(np, {"tokens": self.tokens, **vars(self.index)}, rows, self.context)


def _windows(xp, constant: dict[str, Any], row: dict[str, Any], context: int) -> Batch:
    """Windows from the numbers of their pieces: by NumPy on the host, by JAX on the device."""
    start, length, end = (constant[name][row["index"]] for name in ("start", "length", "end"))
    place = xp.arange(context, dtype=start.dtype)
    place = xp.broadcast_to(place, (*start.shape[:-1], context))
    after = xp.cumsum(length, axis=-1, dtype=start.dtype)
    # The number of pieces that end at or before a place is the number of the piece it is in.
    piece = xp.sum(place[..., None] >= after[..., None, :], axis=-1, dtype=start.dtype)
    real = piece < xp.sum(length > 0, axis=-1, dtype=start.dtype)[..., None]
    piece = xp.where(real, piece, 0)

    def of_piece(values):
        return xp.take_along_axis(values, piece, axis=-1)

    position = xp.where(real, place - of_piece(after - length), 0)
    token = xp.where(real, of_piece(start) + position, 0)
    followed = real & (token + 1 < of_piece(end))
    tokens = constant["tokens"]
    weight = followed.astype(np.float32)
    if "weight" in row:
        weight = weight * row["weight"][..., None]
    return {
        "x": {
            "tokens": xp.where(real, tokens[token], 0).astype(np.int32),
            "segments": xp.where(real, piece + 1, 0).astype(np.int32),
            "positions": position.astype(np.int32),
        },
        "y": xp.where(followed, tokens[xp.where(followed, token + 1, 0)], 0).astype(np.int32),
        "weight": weight,
    }


def documents(
    texts: Sequence[str],
    *,
    batch_size: int,
    seed: int = 0,
    context: int = 64,
    validation: float = 0.1,
    name: str = "documents",
) -> Data:
    """Texts by character, each by itself, packed side by side; see ``Packed``.

    Args:
        texts: the documents; empty ones are left out.
        batch_size: windows in a training batch.
        seed: of the training order.
        context: characters in a window; a longer document is cut.
        validation: share of the documents, the last ones, that is held out; 0 for none.
        name: of the data set, for titles.

    Returns:
        Data without a test part, and with a ``vocabulary`` that encodes and decodes.

    Raises:
        DataError: no documents on one side, sizes below 1 or a share outside [0, 1), or more
            windows in a batch than there are.

    Example:
        >>> from functorch_kit import data
        >>> poems = data.documents(["a rose", "is", "a rose"] * 9, batch_size=2, context=8)
        >>> poems.train(0)["x"]["tokens"].shape, len(poems.vocabulary)
        ((2, 8), 7)
    """
    if not 0 <= validation < 1:
        raise DataError(
            f"validation is {validation}: give a share from 0 up to but not including 1"
        )
    texts = [text for text in texts if text]
    vocabulary = Characters.of("".join(texts))
    cut = len(texts) - int(np.ceil(len(texts) * validation))
    train, held_out = texts[:cut], texts[cut:]
    if not train:
        raise DataError(f"{len(texts)} documents leave none to train on: give more of them")
    tokens, index = _packed(train, vocabulary, context)
    count = len(index.start)
    if not 1 <= batch_size <= count:
        raise DataError(
            f"batch_size is {batch_size}, but the documents fill {count} windows: "
            f"give a number from 1 to {count}"
        )
    resident = tokens.nbytes + 3 * index.start.nbytes <= _RESIDENT_BYTES
    order = Shuffled(count, batch_size, seed)
    evaluated = None
    if held_out:
        held_tokens, held_index = _packed(held_out, vocabulary, context)
        held_count = len(held_index.start)
        size = min(held_count, max(1, _EVALUATION_TOKENS // context))
        evaluated = Packed(held_tokens, held_index, context, Sequential(held_count, size), False)
    return Data(
        Packed(tokens, index, context, order, resident),
        evaluated,
        vocabulary=vocabulary,
        name=name,
    )


def _packed(
    texts: Sequence[str], vocabulary: Characters, context: int
) -> tuple[np.ndarray, PackingIndex]:
    return vocabulary.encode("".join(texts)), pack([len(text) for text in texts], context)
