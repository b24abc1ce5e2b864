"""Batches that are read while the model trains: ``batch = streamed(step)``."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
import time
from concurrent.futures import Executor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import Order, reseeded, steps_per_epoch
from functorch_kit.data.pipeline import DataError
from functorch_kit.data.rooms import Rooms
from functorch_kit.data.source import fill, first_line, name_of, record_of, refused
from functorch_kit.types import Batch, Spec

CHECKS = ("refuse", "skip", "off")
_DECODED_BLOCK_STEPS = 8
# Large enough that finding the records' numbers costs little, small enough to hold two of them.
_BLOCK_BYTES = 16 << 20
_MOST_KNOWN = 1 << 28
_clock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Streamed:
    """Batches of a source as a pure function of the step; used like a ``Pipeline``.

    Each batch is checked where it is read, on the host: values that are not finite, and classes
    outside their range. No value is ever clamped. What is ``skip``ped keeps its place with weight
    0, and a good record of its batch stands in for it, so that the batch is a function of the step
    as before; ``skipped`` counts.

    Attributes:
        source: see ``Source``.
        order: which records stand in which batch.
        check: ``"refuse"`` (a bad record is an error that names it), ``"skip"`` or ``"off"``.
        classes: number of classes; 0 where ``y`` is none.
        skipped: numbers of the records skipped so far -> reason.
        seconds: by stage, what reading has cost so far.
        rooms: memory for blocks, used again when nobody has them any more.

    Example:
        >>> from functorch_kit.data import ArraySource, Shuffled, Streamed
        >>> x = np.array([0.0, np.nan, 2.0, 3.0], np.float32)
        >>> streamed = Streamed(ArraySource({"x": x}), Shuffled(4, 4), check="skip")
        >>> float(streamed(0)["weight"].sum()), streamed.skipped
        (3.0, {1: 'x has a value that is not finite'})
    """

    source: Any
    order: Order
    check: str = "refuse"
    classes: int = 0
    skipped: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    rooms: Rooms = dataclasses.field(default_factory=Rooms, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise DataError(f"check is {self.check!r}: give one of {', '.join(CHECKS)}")
        if self.order.count != len(self.source):
            raise DataError(
                f"the order has {self.order.count} records and {name_of(self.source)}"
                f" {len(self.source)}: make it with the source's length"
            )

    def __call__(self, step: int) -> Batch:
        """The batch of one step, on the host."""
        return jax.tree.map(lambda leaf: leaf[0], self.rows(step, 1))

    def seeded(self, seed: int) -> Streamed:
        """The same records in the order of another seed."""
        return dataclasses.replace(self, order=reseeded(self.order, seed))

    def digest(self) -> list[Any]:
        """What makes two of them the same; what reading has cost is no part of it."""
        return [self.source, self.order, self.check, self.classes]

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return getattr(self.order, "steps", None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that it takes to see every record, rounded up."""
        return steps_per_epoch(self.order)

    @property
    def spec(self) -> Spec:
        """Shapes and dtypes of a batch."""
        size = (self.order.batch_size,)
        spec: Spec = {
            name: jax.ShapeDtypeStruct(size + leaf.shape, canonical(leaf.dtype))
            for name, leaf in self.source.spec.items()
        }
        if self.check == "skip" or self.steps is not None:
            spec.setdefault("weight", jax.ShapeDtypeStruct(size, jnp.float32))
        return spec

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        return self.spec

    @property
    def most_block_steps(self) -> int:
        """How many steps' rows to read at once, at most: few where reading is work."""
        if getattr(self.source, "decodes", False):
            return _DECODED_BLOCK_STEPS
        row = sum(leaf.size * leaf.dtype.itemsize for leaf in self.spec.values())
        return max(1, _BLOCK_BYTES // max(row, 1))

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once: nothing."""
        return {}

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        return self.rows_by(None, start, steps)

    def rows_by(self, pool: Executor | None, start: int, steps: int) -> dict[str, np.ndarray]:
        """The same, read by the threads of a pool."""
        began = time.perf_counter()
        rows = self.order.rows(start, steps)
        self._took("order", time.perf_counter() - began)
        index, weight = rows["index"], rows.get("weight")
        made = {
            name: self.rooms.array((steps, *leaf.shape), leaf.dtype)
            for name, leaf in self.spec.items()
        }

        def read(task: tuple[int, slice]) -> None:
            step, part = task
            out = {name: leaf[step, part] for name, leaf in made.items()}
            self._read_into(out, index[step, part], None if weight is None else weight[step, part])

        tasks = self._tasks(steps, 1 if pool is None else getattr(pool, "_max_workers", 1))
        for _ in (map if pool is None else pool.map)(read, tasks):
            pass
        return made

    def _tasks(self, steps: int, workers: int) -> list[tuple[int, slice]]:
        """Steps, in pieces where there are fewer of them than threads.

        Not where records are skipped: what stands in for one comes from its whole batch.
        """
        size = self.order.batch_size
        pieces = 1 if self.check == "skip" else min(size, -(-workers // max(steps, 1)))
        edges = [size * piece // pieces for piece in range(pieces + 1)]
        return [(step, slice(a, b)) for step in range(steps) for a, b in itertools.pairwise(edges)]

    def batch(self, constant: dict[str, jax.Array], row: dict[str, jax.Array]) -> Batch:
        """Join one row with the constant: the row is the batch."""
        return row

    def read(self, index: np.ndarray, weight: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Records by number, checked.

        Args:
            index: numbers (n,).
            weight: of each, 0 for padding (n,).

        Returns:
            The parts of the records (n, ...), in dtypes that JAX computes in.

        Raises:
            RecordError: a record that cannot be used, unless it is to be skipped; or a whole batch
                of them.
        """
        out: dict[str, np.ndarray] = {
            name: np.empty((len(index), *leaf.shape[1:]), leaf.dtype)
            for name, leaf in self.spec.items()
            if name != "weight" or weight is not None or "weight" in self.source.spec
        }
        if self.check == "skip" and "weight" not in out:
            out["weight"] = np.empty(len(index), np.float32)
        self._read_into(out, index, weight)
        return out

    def _read_into(
        self, out: dict[str, np.ndarray], index: np.ndarray, weight: np.ndarray | None
    ) -> None:
        bad = None
        if self.check == "skip":
            began = time.perf_counter()
            bad = self._skipping(out, index)
            self._took("read", time.perf_counter() - began)
        else:
            began = time.perf_counter()
            self._fill(out, index)
            self._took("read", time.perf_counter() - began)
            if self.check == "refuse":
                began = time.perf_counter()
                self._check(out, index)
                self._took("check", time.perf_counter() - began)
        if "weight" not in out:
            return
        mask: Any = np.ones(len(index), np.float32) if weight is None else weight
        mask = mask if bad is None else mask * ~bad
        if "weight" in self.source.spec:
            own: Any = out["weight"]
            own *= mask.reshape(-1, *(1,) * (own.ndim - 1)).astype(own.dtype)
        else:
            out["weight"][...] = mask

    def _check(self, out: dict[str, np.ndarray], index: np.ndarray) -> None:
        """Refuse bad records; of a source that is fixed, each is looked at when it first comes."""
        if self._sound is not None and self._sound[index].all():
            return
        found = first_fault({name: out[name] for name in self.source.spec}, self.classes)
        if found is not None:
            raise refused(self.source, int(index[found[0]]), found[1])
        if self._sound is not None:
            self._sound[index] = True

    @functools.cached_property
    def _sound(self) -> np.ndarray | None:
        """Which records are known to be sound; None where that is not kept."""
        is_kept = getattr(self.source, "is_fixed", False) and len(self.source) <= _MOST_KNOWN
        return np.zeros(len(self.source), bool) if is_kept else None

    def _fill(self, out: dict[str, np.ndarray], index: np.ndarray) -> None:
        """Read into ``out``, what JAX does not compute in by way of a copy."""
        rooms = {
            name: out[name]
            if leaf.dtype == out[name].dtype
            else np.empty((len(index), *leaf.shape), leaf.dtype)
            for name, leaf in self.source.spec.items()
        }
        fill(self.source, index, rooms)
        for name, room in rooms.items():
            if room is not out[name]:
                self._narrow(room, out[name], name, index)

    def _narrow(self, wide: np.ndarray, out: np.ndarray, name: str, index: np.ndarray) -> None:
        """In fewer bits; an integer that does not fit is refused, not wrapped around."""
        with np.errstate(over="ignore"):  # what becomes infinite is seen by the check
            out[...] = wide.astype(out.dtype)
        if np.issubdtype(out.dtype, np.integer) and (wrong := out != wide).any():
            place = int(np.argmax(wrong.reshape(len(wide), -1).any(axis=1)))
            number = int(index[place])
            raise refused(self.source, number, f"{name} has a number beyond {out.dtype}")

    def _took(self, stage: str, seconds: float) -> None:
        with _clock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def _skipping(self, out: dict[str, np.ndarray], index: np.ndarray) -> np.ndarray:
        """Read into ``out``; which of them are bad, the first good one standing in for these."""
        parts = {name: out[name] for name in self.source.spec}
        bad = np.zeros(len(index), bool)
        try:
            self._fill(out, index)
            if first_fault(parts, self.classes) is None:
                return bad
        except DataError:
            pass  # one of them is bad: they are taken one by one
        reasons: dict[int, str] = {}
        for place in range(len(index)):
            one = {name: leaf[place : place + 1] for name, leaf in parts.items()}
            try:
                self._fill(one, index[place : place + 1])
                found = first_fault(one, self.classes)
                reason = found[1] if found else None
            except DataError as error:
                reason = getattr(error, "reason", first_line(error))
            if reason is not None:
                bad[place] = True
                reasons[record_of(self.source, int(index[place]))] = reason
        if bad.all():
            reason = next(iter(reasons.values()))
            raise refused(self.source, int(index[0]), f"{reason}, as all of its batch")
        self.skipped.update(reasons)
        good = int(np.argmin(bad))
        for leaf in parts.values():
            leaf[bad] = leaf[good]
        return bad


def first_fault(batch: dict[str, np.ndarray], classes: int = 0) -> tuple[int, str] | None:
    """The first record of a batch that nothing should train on, and why.

    Args:
        batch: parts (n, ...).
        classes: number of classes of ``y``; 0 where it is none.

    Returns:
        Its place and the reason, or None.

    Example:
        >>> first_fault({"y": np.array([0, 3, 1])}, classes=3)
        (1, 'its class is 3: classes count from 0 to 2')
    """
    if classes and "y" in batch:
        y = batch["y"]
        wrong = (y < 0) | (y >= classes)
        if wrong.any():
            place = int(np.argmax(wrong.reshape(len(y), -1).any(axis=1)))
            label = y[place] if y.ndim == 1 else y[place][wrong[place]][0]
            return place, f"its class is {label}: classes count from 0 to {classes - 1}"
    for name, leaf in batch.items():
        if jnp.issubdtype(leaf.dtype, np.inexact) and not _all_finite(leaf):
            finite = np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1)
            if not finite.all():
                return int(np.argmin(finite)), f"{name} has a value that is not finite"
    return None


def canonical(dtype: Any) -> np.dtype:
    """The dtype in which JAX computes: 32 bits for 64, where it runs without these.

    Example:
        >>> canonical(np.float64), canonical(np.uint8)
        (dtype('float32'), dtype('uint8'))
    """
    return np.dtype(jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("=")))


def _all_finite(leaf: np.ndarray) -> bool:
    """A sum is not finite where a value is not, and costs a fraction of asking each of them."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.add.reduce(leaf, axis=None)))
