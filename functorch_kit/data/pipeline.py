"""``batch = pipeline(step)``, and how the batch gets into a compiled step."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import Order, Sequential, Shuffled, reseeded, steps_per_epoch
from functorch_kit.errors import UserError
from functorch_kit.types import Batch, Spec

_RESIDENT_BYTES = 1 << 30


class DataError(UserError, ValueError):
    """Data that cannot be used: the message names the array, file or record, and the remedy.

    Example:
        >>> issubclass(DataError, ValueError)
        True
    """


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Batches of in-memory arrays as a pure function of the step.

    A compiled step takes the pipeline in three pieces, so that many steps fit in one dispatch:
    ``constant`` crosses to the device once, ``rows`` cross for each step, and ``batch`` joins a
    row with the constant inside the program. Resident arrays are the constant, and a row is a
    batch's record numbers; otherwise the rows hold the records themselves.

    Attributes:
        arrays: name -> array, the record axis first, all of one length.
        order: which records stand in which batch.
        resident: whether the arrays live on the device.

    Example:
        >>> import numpy as np
        >>> from functorch_kit.data import Pipeline, Shuffled
        >>> pipeline = Pipeline({"x": np.arange(6.0)}, Shuffled(count=6, batch_size=2))
        >>> pipeline(5)["x"].shape
        (2,)
    """

    arrays: dict[str, np.ndarray]
    order: Order
    resident: bool = True

    def __call__(self, step: int) -> Batch:
        """The batch of one step, on the host."""
        row = self.order.rows(step, 1)
        return {name: leaf[0] for name, leaf in self._gather(row).items()}

    def seeded(self, seed: int) -> Pipeline:
        """The same records in the order of another seed."""
        return dataclasses.replace(self, order=reseeded(self.order, seed))

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
        return self._row_spec(resident=False)

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        return self._row_spec(self.resident)

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once."""
        return self.arrays if self.resident else {}

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        rows = self.order.rows(start, steps)
        if not self.resident:
            return self._gather(rows)
        return {**rows, "index": rows["index"].astype(np.int32)}

    def batch(self, constant: dict[str, jax.Array], row: dict[str, jax.Array]) -> Batch:
        """Join one row with the constant; runs inside the compiled step."""
        if not self.resident:
            return row
        batch = {
            name: array.at[row["index"]].get(mode="promise_in_bounds")
            for name, array in constant.items()
        }
        return _weighted(batch, row)

    def _gather(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = {name: array[rows["index"]] for name, array in self.arrays.items()}
        return _weighted(batch, rows)

    def _row_spec(self, resident: bool) -> Spec:
        size = (self.order.batch_size,)
        if resident:
            spec = {"index": jax.ShapeDtypeStruct(size, jnp.int32)}
        else:
            spec = {
                name: jax.ShapeDtypeStruct(size + array.shape[1:], array.dtype)
                for name, array in self.arrays.items()
            }
        if self.steps is not None:
            spec.setdefault("weight", jax.ShapeDtypeStruct(size, jnp.float32))
        return spec


class Data(NamedTuple):
    """What ``fit`` trains, validates and tests on.

    Attributes:
        train: an endless stream of shuffled batches.
        validation: all validation records once, in order; None if there are none.
        test: likewise for the test part.
        class_names: a name for each class; empty for other tasks.
        name: of the data set, for titles.
        vocabulary: of a text, see ``Vocabulary``; None for other data.
        inputs: what records are before they are prepared, see ``Inputs``; None: what ``train`` has.

    Example:
        >>> import numpy as np
        >>> from functorch_kit import data
        >>> parts = data.arrays(np.zeros((100, 3)), np.arange(100) % 2, batch_size=10)
        >>> parts.train(0)["x"].shape, parts.validation.steps
        ((10, 3), 1)
    """

    train: Any
    validation: Any = None
    test: Any = None
    class_names: tuple[str, ...] = ()
    name: str = "arrays"
    vocabulary: Any = None
    inputs: Any = None


def training(arrays: dict[str, np.ndarray], batch_size: int, seed: int) -> Pipeline:
    """An endless shuffled stream over ``arrays``.

    Raises:
        DataError: more records in a batch than there are, or none.

    Example:
        >>> import numpy as np
        >>> training({"x": np.zeros((8, 2))}, batch_size=4, seed=0).steps_per_epoch
        2
    """
    count = _count(arrays)
    if not 1 <= batch_size <= count:
        raise DataError(
            f"batch_size is {batch_size}, but there are {count} training records: "
            f"give a number from 1 to {count}"
        )
    return Pipeline(arrays, Shuffled(count, batch_size, seed), _fits_on_device(arrays))


def evaluation(arrays: dict[str, np.ndarray], batch_size: int = 512) -> Pipeline:
    """Every record of ``arrays`` once, in order; the last batch is padded with weight 0.

    An array ``weight`` among them counts: padding alone is set to 0.

    Raises:
        DataError: a batch size below 1, or no records.

    Example:
        >>> import numpy as np
        >>> evaluation({"x": np.zeros((5, 2))}, batch_size=2).steps
        3
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: give a number from 1 up")
    return Pipeline(arrays, Sequential(_count(arrays), batch_size), resident=False)


def _weighted(batch: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The batch with its own weights, and 0 where the order says that a record is padding."""
    if "weight" not in row:
        return batch
    weight = row["weight"]
    if "weight" in batch:
        own = batch["weight"]
        real = weight.reshape(weight.shape + (1,) * (own.ndim - weight.ndim))
        weight = own * real.astype(own.dtype)
    return batch | {"weight": weight}


def _count(arrays: dict[str, np.ndarray]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"arrays must have one length, above 0; here they have {lengths}")
    return next(iter(lengths.values()))


def _fits_on_device(arrays: dict[str, np.ndarray]) -> bool:
    return sum(array.nbytes for array in arrays.values()) <= _RESIDENT_BYTES
