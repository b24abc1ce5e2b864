"""A batch in as many pieces as a memory budget asks for, one after the other in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.flat import live_bytes, trace
from functorch_kit.types import PyTree

MEMORY = 1 << 30
"""Bytes that a transform takes for what it computes in between, unless it is told otherwise."""

Part = Callable[[PyTree], tuple[PyTree, PyTree]]
"""``part(rows) -> (reduced, each)``: what adds up over pieces, and what each row gets."""


def check_memory(memory: int, chunk: int | None) -> None:
    """Refuse limits that leave no room for one row.

    Raises:
        TransformError: not positive.

    Example:
        >>> check_memory(1 << 20, None)
    """
    if memory < 1:
        raise TransformError(f"memory={memory}: give bytes, from 1 up")
    if chunk is not None and chunk < 1:
        raise TransformError(f"chunk={chunk}: give rows at a time, from 1 up, or None")


def rows_within(memory: int, part: Callable[[PyTree], Any], rows: PyTree) -> int:
    """How many rows a function can take at once within a budget, from abstract shapes.

    The function is traced for two rows and for three. What the third adds while a step runs, each
    further row adds again; the step at which memory runs out first need not be the largest of few.

    Args:
        memory: bytes for the results of its steps, see ``live_bytes``.
        part: of arrays with the rows as a first axis.
        rows: these arrays, or their specs.

    Returns:
        At least 1, and at most as many as there are.

    Example:
        >>> rows = jnp.ones((100, 256))
        >>> rows_within(20_480, lambda rows: jnp.sum(jnp.sin(jnp.cos(rows)), 1), rows)
        10
    """

    def live(count: int) -> list[int]:
        spec = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), rows
        )
        return live_bytes(trace(part, spec)[0])

    fit = jax.tree.leaves(rows)[0].shape[0]
    if fit > 1:
        for two, three in zip(live(2), live(3), strict=False):
            if three > two:
                fit = min(fit, 2 + (memory - two) // (three - two))
    return max(1, fit)


def in_chunks(
    part: Part, rows: PyTree, chunk: int, merge: Callable[[PyTree, PyTree], PyTree]
) -> tuple[PyTree, PyTree]:
    """Apply a function to a batch piece by piece.

    Args:
        part: see ``Part``; zeros have to be what a merge leaves as it is.
        rows: arrays with the rows as a first axis.
        chunk: rows of a piece, at most; pieces are as even as can be.
        merge: of what two pieces were reduced to.

    Returns:
        What all rows were reduced to, and what each row got.

    Example:
        >>> add = lambda a, b: a + b
        >>> total, squares = in_chunks(lambda x: (x.sum(), x**2), jnp.arange(5.0), 2, add)
        >>> total.item(), squares.tolist()
        (10.0, [0.0, 1.0, 4.0, 9.0, 16.0])
    """
    size = jax.tree.leaves(rows)[0].shape[0]
    if size == 0:
        return _nothing(part, rows)
    pieces = -(-size // max(1, min(chunk, size)))
    if pieces == 1:
        return part(rows)
    # As even as can be: the last piece is a program of its own, and a small one wastes it.
    chunk = -(-size // pieces)
    whole = size // chunk

    def split(leaf: jax.Array) -> jax.Array:
        return leaf[: whole * chunk].reshape(whole, chunk, *leaf.shape[1:])

    def joined(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(whole * chunk, *leaf.shape[2:])

    def step(reduced: PyTree, piece: PyTree) -> tuple[PyTree, PyTree]:
        found, each = part(piece)
        return merge(reduced, found), each

    start, _ = _nothing(part, rows)
    reduced, each = lax.scan(step, start, jax.tree.map(split, rows))
    each = jax.tree.map(joined, each)
    if whole * chunk == size:
        return reduced, each
    reduced, last = step(reduced, jax.tree.map(lambda leaf: leaf[whole * chunk :], rows))
    return reduced, jax.tree.map(lambda *both: jnp.concatenate(both), each, last)


def _nothing(part: Part, rows: PyTree) -> tuple[PyTree, PyTree]:
    """What no row at all gives: zeros, and rows of none."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), rows)
    reduced, each = jax.eval_shape(part, one)
    return (
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), reduced),
        jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape[1:]), leaf.dtype), each),
    )
