"""The training data of many lanes as one pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from functorch_kit.types import Batch, Spec


class SideBySide:
    """The pipelines of many lanes, used like one; see ``functorch_kit.data.Pipeline``.

    What lanes have in common crosses to the device once: the arrays, where they are the same ones,
    and the batches themselves where all lanes read the same. Otherwise the rows, and what a batch
    is made of, have a lane axis.

    Args:
        pipelines: one for each lane; the same object where lanes read the same.

    Attributes:
        pipelines: likewise.
        one: the first of them.
        is_shared: whether all lanes read the same batches.

    Example:
        >>> from functorch_kit import data
        >>> digits = data.digits(batch_size=4).train
        >>> two = SideBySide([digits, digits.seeded(1)])
        >>> two.spec["x"].shape, two.rows(0, 3)["index"].shape
        ((2, 4, 8, 8, 1), (3, 2, 4))
        >>> SideBySide([digits, digits]).spec["x"].shape
        (4, 8, 8, 1)
    """

    def __init__(self, pipelines: Sequence[Any]):
        self.pipelines = tuple(pipelines)
        self.one = self.pipelines[0]
        self.is_shared = all(each is self.one for each in self.pipelines)
        # Lanes that read the same need their rows made once.
        numbers: dict[int, int] = {}
        for each in self.pipelines:
            numbers.setdefault(id(each), len(numbers))
        self._lane_rows = np.array([numbers[id(each)] for each in self.pipelines])
        self._distinct = [
            self.pipelines[int(np.argmax(self._lane_rows == number))]
            for number in range(len(numbers))
        ]
        first = jax.tree.leaves(self.one.constant())
        self._has_one_constant = all(
            one is other
            for each in self._distinct
            for one, other in zip(first, jax.tree.leaves(each.constant()), strict=True)
        )

    @property
    def steps_per_epoch(self) -> int:
        """As that of each lane."""
        return self.one.steps_per_epoch

    @property
    def spec(self) -> Spec:
        """Shapes and dtypes of a batch."""
        return self._with_lanes(self.one.spec)

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        return self._with_lanes(self.one.row_spec)

    def constant(self) -> Any:
        """What crosses to the device once."""
        if self._has_one_constant:
            return self.one.constant()
        each = [pipeline.constant() for pipeline in self.pipelines]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    def rows(self, start: int, steps: int) -> Any:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        if self.is_shared:
            return self.one.rows(start, steps)
        each = [pipeline.rows(start, steps) for pipeline in self._distinct]
        return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1)[:, self._lane_rows], *each)

    def batch(self, constant: Any, row: Any) -> Batch:
        """Join one row with the constant; runs inside the compiled step."""
        if self.is_shared:
            return self.one.batch(constant, row)
        axes = (None if self._has_one_constant else 0, 0)
        return jax.vmap(self.one.batch, in_axes=axes)(constant, row)

    def _with_lanes(self, spec: Spec) -> Spec:
        if self.is_shared:
            return spec
        count = len(self.pipelines)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), spec
        )
