"""Transforms on the device, inside the step, as functions of (seed, step, record)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import keys_of
from functorch_kit.types import Batch, Spec

Transform = Callable[[Any, Batch], Batch]
"""``transform(keys, batch) -> batch``: a pure function; ``keys`` (batch,), one for each example."""


@dataclasses.dataclass(frozen=True)
class Transformed:
    """A pipeline whose batches a pure function changes, inside the compiled step.

    It is used like the pipeline itself. Each example has a key that follows from the seed, the step
    and its record's number, so that what a transform draws is a function of the step, too, wherever
    and in whatever form the step runs. Only the keys cross to the device, eight bytes a record.

    Attributes:
        inner: the pipeline.
        transform: ``transform(keys, batch) -> batch``.
        seed: of the keys.
        random: whether the transform draws; without, no keys cross and it is given none.

    Example:
        >>> from functorch_kit.data import Transformed, training
        >>> noisy = lambda keys, batch: {
        ...     "x": batch["x"] + jax.vmap(lambda key: jax.random.normal(key, ()))(keys)}
        >>> pipeline = Transformed(training({"x": np.zeros(8, np.float32)}, 4, 0), noisy)
        >>> bool((pipeline(3)["x"] == pipeline(3)["x"]).all()), bool((pipeline(3)["x"] == 0).any())
        (True, False)
    """

    inner: Any
    transform: Transform
    seed: int = 0
    random: bool = True

    def __call__(self, step: int) -> Batch:
        """The batch of one step, on the host."""
        return jax.tree.map(np.asarray, self.on_device(step))

    def on_device(self, step: int) -> Batch:
        """The batch of one step, where it was transformed."""
        keys = self._keys(step, 1)["transform_key"][0] if self.random else None
        return self._jitted(keys, self.inner(step))

    def seeded(self, seed: int) -> Transformed:
        """The same records in the order of another seed, and with other draws."""
        return dataclasses.replace(self, inner=self.inner.seeded(seed), seed=seed)

    def digest(self) -> list[Any]:
        """What makes two of them the same, but for the function: that is its settings' business."""
        return [self.inner, self.seed, self.random]

    @property
    def order(self) -> Any:
        """Which records stand in which batch."""
        return self.inner.order

    @property
    def arrays(self) -> Any:
        """The arrays before the transform, where they are in memory."""
        return self.inner.arrays

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return self.inner.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches that it takes to see every record, rounded up."""
        return self.inner.steps_per_epoch

    @property
    def most_block_steps(self) -> int | None:
        """How many steps' rows to read at once, at most."""
        return getattr(self.inner, "most_block_steps", None)

    @functools.cached_property
    def spec(self) -> Spec:
        """Shapes and dtypes of a batch."""
        keys = self._key_spec["transform_key"] if self.random else None
        return jax.eval_shape(self._apply, keys, self.inner.spec)

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        return {**self.inner.row_spec, **(self._key_spec if self.random else {})}

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once."""
        return self.inner.constant()

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        return self._with_keys(self.inner.rows(start, steps), start, steps)

    def rows_by(self, pool: Any, start: int, steps: int) -> dict[str, np.ndarray]:
        """The same, read by the threads of a pool, where the pipeline can do that."""
        by = getattr(self.inner, "rows_by", None)
        rows = self.inner.rows(start, steps) if by is None else by(pool, start, steps)
        return self._with_keys(rows, start, steps)

    def _with_keys(self, rows: dict[str, Any], start: int, steps: int) -> dict[str, Any]:
        return {**rows, **self._keys(start, steps)} if self.random else rows

    def batch(self, constant: dict[str, jax.Array], row: dict[str, Any]) -> Batch:
        """Join one row with the constant and transform it; runs inside the compiled step."""
        row = dict(row)
        keys = row.pop("transform_key", None)
        return self._apply(keys, self.inner.batch(constant, row))

    @functools.cached_property
    def _jitted(self) -> Callable[..., Batch]:
        return jax.jit(self._apply)

    def _apply(self, keys: Any, batch: Batch) -> Batch:
        if keys is not None:
            keys = jax.random.wrap_key_data(keys, impl="threefry2x32")
        return self.transform(keys, batch)

    def _keys(self, start: int, steps: int) -> dict[str, np.ndarray]:
        index = self.order.rows(start, steps)["index"]
        step = np.arange(start, start + steps)[:, None]
        return {"transform_key": keys_of(self.seed, step, index)}

    @property
    def _key_spec(self) -> Spec:
        return {"transform_key": jax.ShapeDtypeStruct((self.order.batch_size, 2), jnp.uint32)}
