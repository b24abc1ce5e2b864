"""Jacobians by columns, by rows, or in two halves that meet where the function is narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from functorch_kit.transforms.chunks import MEMORY, check_memory, rows_within
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.flat import Flat, evaluate, trace
from functorch_kit.types import PyTree

MODES = ("auto", "forward", "reverse", "mixed")

# What one pass backwards costs, in passes forwards of the same function: each of its products has
# one transposed product either way, and the values that it needs are stored and read back.
_REVERSE_COST = 1.2


def jacobian(
    f: Callable[..., PyTree],
    mode: str = "auto",
    *,
    memory: int = MEMORY,
    chunk: int | None = None,
) -> Callable[..., PyTree]:
    """The derivative of every output in every input.

    ``jax.jacfwd`` or ``jax.jacrev``, whichever has fewer passes for the shapes at hand, within a
    memory budget. ``mixed`` looks for the narrowest place that everything passes on its way from
    the inputs to the outputs (a bottleneck, a low-rank head), goes backwards from there to the
    inputs and forwards to the outputs, and multiplies the two; ``auto`` takes it where that saves
    at least half of the passes.

    Args:
        f: ``f(x, *args) -> y``; the pytrees x and y have floating leaves.
        mode: ``auto``, ``forward``, ``reverse`` or ``mixed``.
        memory: bytes for intermediate values, estimated from abstract shapes; the Jacobian itself
            comes on top.
        chunk: columns or rows at a time; as many as the memory allows if None.

    Returns:
        ``jacobian(x, *args)``: y's structure, each leaf of it x's structure, each leaf of that
        (*shape in y, *shape in x), as JAX's own.

    Raises:
        TransformError: an unknown mode, a limit that is not positive; at the call, leaves without a
            derivative, or ``mixed`` where no place is narrower than inputs and outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import transforms
        >>> transforms.jacobian(lambda x: jnp.stack([x[0] * x[1], x[1]]))(jnp.array([2.0, 3.0]))
        Array([[3., 2.],
               [0., 1.]], dtype=float32)
    """
    if mode not in MODES:
        raise TransformError(f"jacobian: no mode {mode!r}: there are {', '.join(MODES)}")
    check_memory(memory, chunk)

    @jax.jit
    def of(x: PyTree, *args: PyTree) -> PyTree:
        _check_floats(x, "the input")
        y_spec = jax.eval_shape(f, x, *args)
        _check_floats(y_spec, "the output")
        flat_x, unravel = ravel_pytree(x)

        def flat_f(flat_x: Array) -> Array:
            return ravel_pytree(f(unravel(flat_x), *args))[0]

        outputs = sum(leaf.size for leaf in jax.tree.leaves(y_spec))
        limits = _Limits(memory, chunk)
        matrix = _matrix(flat_f, flat_x, outputs, mode, limits)
        return _as_trees(matrix, x, y_spec)

    return of


class _Limits(NamedTuple):
    memory: int
    chunk: int | None

    def mapped(self, f: Callable[[Array], Array], size: int, dtype: Any) -> Array:
        """``f`` of every unit vector, as rows; so many at a time as the memory allows."""
        basis = jax.ShapeDtypeStruct((size, size), dtype)
        rows = self.chunk or rows_within(self.memory, jax.vmap(f), basis)
        if rows >= size:
            return jax.vmap(f)(jnp.eye(size, dtype=dtype))

        def unit(index: Array) -> Array:
            return f((jnp.arange(size, dtype=index.dtype) == index).astype(dtype))

        return lax.map(unit, jnp.arange(size), batch_size=rows)


def _matrix(
    f: Callable[[Array], Array], x: Array, outputs: int, mode: str, limits: _Limits
) -> Float[Array, "outputs inputs"]:
    if mode == "mixed" or (mode == "auto" and min(x.size, outputs) > 1):
        narrow = _narrowest(f, x, outputs)
        if narrow is not None and (mode == "mixed" or 4 * narrow.size <= min(x.size, outputs)):
            return _through(narrow, x, limits)
        if mode == "mixed":
            raise TransformError(
                f"jacobian: mixed: no place between {x.size} inputs and {outputs} outputs is"
                " narrower than both: use auto"
            )
    forward = x.size <= _REVERSE_COST * outputs
    return (_forward if mode == "forward" or (mode == "auto" and forward) else _reverse)(
        f, x, limits
    )


def _forward(f: Callable[[Array], Array], x: Array, limits: _Limits) -> Array:
    _, push = jax.linearize(f, x)
    return limits.mapped(push, x.size, x.dtype).T


def _reverse(f: Callable[[Array], Array], x: Array, limits: _Limits) -> Array:
    y, pull = jax.vjp(f, x)
    return limits.mapped(lambda slope: pull(slope)[0], y.size, y.dtype)


class _Narrow(NamedTuple):
    """A function cut in two, and how many numbers pass from the first half to the second."""

    first: Callable[[Array], Array]
    second: Callable[[Array], Array]
    size: int


def _through(narrow: _Narrow, x: Array, limits: _Limits) -> Array:
    middle = narrow.first(x)
    return _forward(narrow.second, middle, limits) @ _reverse(narrow.first, x, limits)


def _narrowest(f: Callable[[Array], Array], x: Array, outputs: int) -> _Narrow | None:
    """Cut a function behind the step where the fewest numbers that depend on x are still needed."""
    flat, _ = trace(f, x)
    last: dict[int, int] = dict.fromkeys(flat.outputs, len(flat.steps))
    for index in reversed(range(len(flat.steps))):
        for number in flat.steps[index].inputs:
            last.setdefault(number, index)
    live, best, cut = {flat.inputs[0]}, min(x.size, outputs), None
    depends = set(live)
    for index, step in enumerate(flat.steps):
        if not depends.isdisjoint(step.inputs):
            depends |= set(step.outputs)
            live |= set(step.outputs)
        live = {number for number in live if last.get(number, -1) > index}
        size = sum(flat.avals[number].size for number in live)
        # Integers made of x pass no derivative, but the second half would need their values.
        if all(_is_float(flat.avals[number]) for number in live) and 0 < size < best:
            best, cut = size, (index, sorted(live))
    if cut is None:
        return None
    return _cut(flat, x, *cut)


def _cut(flat: Flat, x: Array, at: int, live: list[int]) -> _Narrow:
    """The steps up to one, and those behind it that depend on what is alive there."""
    avals = [flat.avals[number] for number in live]
    # What does not depend on x is computed by the second half again; what does, comes in.
    head = flat._replace(outputs=tuple(live), steps=flat.steps[: at + 1])
    depends = {flat.inputs[0]}
    rest = []
    for index, step in enumerate(flat.steps):
        if not depends.isdisjoint(step.inputs):
            depends.update(step.outputs)
            if index <= at:
                continue
        rest.append(step)
    tail = flat._replace(inputs=tuple(live), steps=rest)

    def first(x: Array) -> Array:
        return _joined(evaluate(head, [x]))

    def second(middle: Array) -> Array:
        pieces, start = [], 0
        for aval in avals:
            piece = lax.slice(middle, (start,), (start + aval.size,))
            pieces.append(piece.reshape(aval.shape).astype(aval.dtype))
            start += aval.size
        return evaluate(tail, pieces)[0]

    return _Narrow(first, second, sum(aval.size for aval in avals))


def _joined(leaves: list[Array]) -> Array:
    dtype = jnp.result_type(*leaves)
    return jnp.concatenate([leaf.ravel().astype(dtype) for leaf in leaves])


def _is_float(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _check_floats(tree: PyTree, what: str) -> None:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise TransformError(f"jacobian: {what} has no arrays")
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TransformError(
                f"jacobian: {what} holds {jnp.result_type(leaf)}, which has no derivative: pass"
                " it as a further argument, or leave it out"
            )


def _as_trees(matrix: Array, x: PyTree, y: PyTree) -> PyTree:
    x_leaves, x_structure = jax.tree.flatten(x)
    y_leaves, y_structure = jax.tree.flatten(y)
    rows, top = [], 0
    for out in y_leaves:
        entries, left = [], 0
        for leaf in x_leaves:
            block = matrix[top : top + out.size, left : left + leaf.size]
            entries.append(block.reshape(*out.shape, *leaf.shape).astype(out.dtype))
            left += leaf.size
        rows.append(jax.tree.unflatten(x_structure, entries))
        top += out.size
    return jax.tree.unflatten(y_structure, rows)
