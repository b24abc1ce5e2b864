"""Windows of one long sequence of tokens: ``batch = windows(step)``."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.data.order import Order, reseeded
from functorch_kit.types import Batch, Spec


@dataclasses.dataclass(frozen=True)
class Windows:
    """Batches of windows of a sequence, ``y`` being ``x`` one token on.

    It is used like a ``Pipeline``. Where the tokens live on the device, they are the ``constant``
    and a row is the batch's window starts; otherwise the rows hold the windows themselves.

    Attributes:
        tokens: the sequence (n,), integers of at most 32 bits, memory-mapped or not.
        context: tokens in a window.
        order: which windows stand in which batch; window ``i`` starts at ``i * stride``.
        stride: tokens from one window's start to the next. 1 and a ``Shuffled`` order for training;
            the context and a ``Sequential`` order to see each token once.
        resident: whether the tokens live on the device.

    Example:
        >>> import numpy as np
        >>> from functorch_kit.data import Sequential, Windows
        >>> tokens = np.arange(6, dtype=np.int32)
        >>> windows = Windows(tokens, 3, Sequential(count=2, batch_size=2), stride=3)
        >>> batch = windows(0)
        >>> batch["x"].tolist(), batch["y"].tolist(), batch["weight"].tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """

    tokens: np.ndarray
    context: int
    order: Order
    stride: int = 1
    resident: bool = True

    def __call__(self, step: int) -> Batch:
        """The batch of one step, on the host."""
        return {name: leaf[0] for name, leaf in self._gather(self._starts(step, 1)).items()}

    def seeded(self, seed: int) -> Windows:
        """The same records in the order of another seed."""
        return dataclasses.replace(self, order=reseeded(self.order, seed))

    @property
    def steps(self) -> int | None:
        """Number of batches in one pass; None for an endless stream."""
        return getattr(self.order, "steps", None)

    @property
    def steps_per_epoch(self) -> int:
        """Batches whose windows have, together, as many tokens as the sequence, rounded up."""
        windows = getattr(self.order, "global_batch_size", self.order.batch_size)
        return -(-len(self.tokens) // (windows * self.context))

    @property
    def spec(self) -> Spec:
        """Shapes and dtypes of a batch."""
        shape = (self.order.batch_size, self.context)
        spec = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("x", "y")}
        if self._is_padded:
            spec["weight"] = jax.ShapeDtypeStruct(shape, jnp.float32)
        return spec

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        if not self.resident:
            return self.spec
        size = (self.order.batch_size,)
        spec = {"start": jax.ShapeDtypeStruct(size, jnp.int32)}
        if self._is_padded:
            spec["weight"] = jax.ShapeDtypeStruct(size, jnp.float32)
        return spec

    def constant(self) -> dict[str, np.ndarray]:
        """What crosses to the device once."""
        return {"tokens": self.tokens} if self.resident else {}

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, stacked along a first axis."""
        rows = self._starts(start, steps)
        if not self.resident:
            return self._gather(rows)
        return {**rows, "start": rows["start"].astype(np.int32)}

    def batch(self, constant: dict[str, jax.Array], row: dict[str, jax.Array]) -> Batch:
        """Join one row with the constant; runs inside the compiled step."""
        if not self.resident:
            return row
        position = row["start"][:, None] + jnp.arange(self.context + 1, dtype=jnp.int32)[None]
        # A window that ends beyond the sequence is padded with token 0.
        window = constant["tokens"].at[position].get(mode="fill", fill_value=0).astype(jnp.int32)
        batch = {"x": window[:, :-1], "y": window[:, 1:]}
        if self._is_padded:
            inside = position[:, 1:] < len(self.tokens)
            batch["weight"] = jnp.where(inside, row["weight"][:, None], 0)
        return batch

    @property
    def _is_padded(self) -> bool:
        return self.steps is not None

    def _starts(self, start: int, steps: int) -> dict[str, np.ndarray]:
        rows = self.order.rows(start, steps)
        starts = {"start": rows["index"] * self.stride}
        return starts | {"weight": rows["weight"]} if "weight" in rows else starts

    def _gather(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        position = rows["start"][..., None] + np.arange(self.context + 1)
        inside = position < len(self.tokens)
        window = np.where(inside, self.tokens[np.where(inside, position, 0)], 0).astype(np.int32)
        batch = {"x": window[..., :-1], "y": window[..., 1:]}
        if "weight" in rows:
            batch["weight"] = np.where(inside[..., 1:], rows["weight"][..., None], np.float32(0))
        return batch
