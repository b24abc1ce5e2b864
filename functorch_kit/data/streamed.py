"""Batches that are read while the model trains: ``batch = streamed(step)``."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import Order, steps_per_epoch
from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import RecordError, first_line, name_of, record_of
from functorch_kit.types import Batch, Spec

CHECKS = ("refuse", "skip", "off")
_DECODED_BLOCK_STEPS = 8


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
    skipped: dict[int, str] = dataclasses.field(default_factory=dict)

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
    def most_block_steps(self) -> int | None:
        """How many steps' rows to read at once, at most: few where reading is work."""
        return _DECODED_BLOCK_STEPS if getattr(self.source, "decodes", False) else None

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once: nothing."""
        return {}

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        rows = self.order.rows(start, steps)
        shape = rows["index"].shape
        flat = {name: leaf.reshape(-1, *leaf.shape[2:]) for name, leaf in rows.items()}
        batch = self.read(flat["index"], flat.get("weight"))
        return {name: leaf.reshape(*shape, *leaf.shape[1:]) for name, leaf in batch.items()}

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
            RecordError: a record that cannot be used, unless it is to be skipped.
        """
        bad = np.zeros(len(index), bool)
        if self.check == "off":
            batch = self._narrowed(self.source.batch(index))
        elif self.check == "refuse":
            batch = self._narrowed(self.source.batch(index))
            if (found := first_fault(batch, self.classes)) is not None:
                record = record_of(self.source, int(index[found[0]]))
                raise RecordError(name_of(self.source), record, found[1])
        else:
            batch, bad = self._skipping(index)
        if self.check == "skip" or weight is not None:
            mask = (np.ones(len(index), np.float32) if weight is None else weight) * ~bad
            own = batch.get("weight")
            if own is not None:
                mask = own * mask.reshape(-1, *(1,) * (own.ndim - 1)).astype(own.dtype)
            batch["weight"] = mask
        return batch

    def _narrowed(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """In dtypes that JAX computes in; an integer that does not fit is refused, not wrapped."""
        made: dict[str, np.ndarray] = {}
        for name, leaf in batch.items():
            dtype = canonical(leaf.dtype)
            if dtype != leaf.dtype:
                with np.errstate(over="ignore"):
                    cast = leaf.astype(dtype)
                if np.issubdtype(dtype, np.integer) and (cast != leaf).any():
                    raise DataError(f"{name_of(self.source)}: {name} has a number beyond {dtype}")
                leaf = cast
            made[name] = leaf
        return made

    def _skipping(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        try:
            batch = self._narrowed(self.source.batch(index))
            if first_fault(batch, self.classes) is None:
                return batch, np.zeros(len(index), bool)
        except DataError:
            pass  # one of them is bad: they are taken one by one
        bad = np.zeros(len(index), bool)
        singles: list[Any] = [None] * len(index)
        for place in range(len(index)):
            number = record_of(self.source, int(index[place]))
            try:
                one = self._narrowed(self.source.batch(index[place : place + 1]))
                found = first_fault(one, self.classes)
                reason = found[1] if found else None
            except DataError as error:
                one, reason = None, getattr(error, "reason", first_line(error))
            if reason is None:
                singles[place] = one
            else:
                bad[place] = True
                self.skipped[number] = reason
        good = [one for one in singles if one is not None]
        if not good:
            number = record_of(self.source, int(index[0]))
            raise RecordError(
                name_of(self.source), number, f"{self.skipped[number]}, as all of its batch"
            )
        filled = [one if one is not None else good[0] for one in singles]
        names = filled[0].keys()
        return {name: np.concatenate([one[name] for one in filled]) for name in names}, bad


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
        if np.issubdtype(leaf.dtype, np.inexact) and not _all_finite(leaf):
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
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def _all_finite(leaf: np.ndarray) -> bool:
    """A sum is not finite where a value is not, and costs a fraction of asking each of them."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.add.reduce(leaf, axis=None)))
