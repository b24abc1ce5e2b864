"""Backward passes over the examples of a batch, as many examples at once as memory holds."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array

from functorch_kit.transforms.backward import Backward, ExampleLoss, batch_size, plan
from functorch_kit.transforms.chunks import in_chunks, rows_within
from functorch_kit.types import Params, PyTree

Reduce = Callable[[Backward, Array | None], tuple[PyTree, PyTree]]
"""``reduce(backward, mask) -> (reduced, each)``: what adds up over chunks, what examples get."""


def over_examples(
    f: ExampleLoss,
    reduce: Reduce,
    merge: Callable[[PyTree, PyTree], PyTree],
    params: Params,
    batch: PyTree,
    mask: Array | None,
    memory: int,
    chunk: int | None,
) -> tuple[PyTree, PyTree]:
    """Take what is asked for from the backward passes of all examples.

    Args:
        f: the loss of one example.
        reduce: of one chunk.
        merge: of what two chunks were reduced to.
        params: the parameters.
        batch: arrays with the examples as a first axis.
        mask: 0 for examples that count for nothing (examples,); None if there are none.
        memory: bytes for intermediate values.
        chunk: examples at a time; as many as the memory allows if None.

    Returns:
        What all examples were reduced to, and what each of them got.

    Example:
        >>> import jax.numpy as jnp
        >>> found, _ = over_examples(
        ...     lambda w, x: w * x, lambda backward, mask: (backward.losses.sum(), ()),
        ...     lambda one, other: one + other, jnp.array(2.0), jnp.arange(4.0), None, 1 << 20, 3)
        >>> found.item()
        12.0
    """
    size = batch_size(batch, mask)
    rows = (batch, None if mask is None else mask.astype(bool))

    def part_of(at_once: int) -> Callable[[PyTree], tuple[PyTree, PyTree]]:
        found = plan(f, params, batch, at_once)
        return lambda rows: reduce(Backward(found, params, *rows), rows[1])

    part = part_of(size)
    if chunk is None:
        chunk = rows_within(memory, part, rows) if size else 1
    if chunk < size:
        # In a loop convolutions choose the form that a loop does not slow down.
        part = part_of(1)
    return in_chunks(part, rows, chunk, merge)
