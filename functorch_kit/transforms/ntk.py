"""The empirical neural tangent kernel of any pure function, tile by tile."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from functorch_kit.transforms.chunks import MEMORY, check_memory
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.kernel_factors import factored
from functorch_kit.transforms.kernel_products import OUTPUTS, Factors, contracted, with_itself
from functorch_kit.transforms.kernel_tiles import Function, columns, jacobian
from functorch_kit.transforms.linearise import both_ways, linearised
from functorch_kit.types import Params, PyTree, spec_of

METHODS = ("jacobian", "structured", "vector")
_MAKERS = {"jacobian": jacobian, "structured": factored}


class Kernel(NamedTuple):
    """A neural tangent kernel, and how it was computed.

    Attributes:
        values: see ``ntk``.
        method: the one that was taken.
        seconds: method -> what it was measured to take for the whole kernel, in s, without
            compiling; empty where the method was given.
        tile: rows and columns that were computed at a time.
    """

    values: Array
    method: str
    seconds: dict[str, float]
    tile: tuple[int, int]


def ntk(
    f: Callable[[Params, PyTree], Array],
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    outputs: str = "full",
    pairs: str = "all",
    method: str = "auto",
    separable: bool = True,
    memory: int = MEMORY,
) -> Kernel:
    """J(x1) J(x2)^T, where J holds the derivatives of the outputs in the parameters.

    Jacot, Gabriel and Hongler, 2018. It is computed tile by tile, so that the Jacobians at hand
    never exceed the memory. Three methods give the same numbers (Novak, Sohl-Dickstein and
    Schoenholz, 2022): ``"jacobian"`` makes the Jacobians of a tile's rows and columns and
    multiplies them; ``"structured"`` leaves those of matrix products in their two factors where
    that costs less; ``"vector"`` makes a column at a time, as the kernel's product with a one-hot
    vector, and holds a gradient for each. Which one is fastest depends on sizes and machine, so
    ``"auto"`` times a tile of each. All work through ``scan`` and ``jax.checkpoint``.

    Args:
        f: ``f(params, x) -> (examples, ...)``; pure. What it returns behind the first axis are the
            outputs, O of them in all.
        params: a pytree of floats.
        x1: N1 examples: a pytree of arrays, examples first.
        x2: N2 examples; those of ``x1`` if None, and then each pair is computed once.
        outputs: ``"full"`` for (N1, N2, O, O), ``"diagonal"`` for (N1, N2, O), each output with
            itself, or ``"trace"`` for (N1, N2), their sum. (neural-tangents divides that by O.)
        pairs: ``"all"``, or ``"same"`` for each example with itself alone: (N1, O, O), (N1, O) or
            (N1,).
        method: ``"jacobian"``, ``"structured"`` (of separable functions), ``"vector"`` or
            ``"auto"``; each example with itself is never by ``"vector"``.
        separable: whether an example's outputs depend on that example alone, which is checked. Not
            so with batch norm in training, or with a fixed key of dropout, which draws for the
            batch as a whole: then every derivative goes through the whole batch, N times dearer.
        memory: bytes for Jacobians; a tile is one row and one column at least.

    Returns:
        The kernel, how it was computed, and what each method was measured to take.

    Raises:
        TransformError: an unknown option, outputs without an axis of examples, a function that is
            not separable, or a call inside ``jax.jit``, where nothing can be timed.

    Example:
        >>> import jax.numpy as jnp
        >>> def f(w, x):
        ...     return x @ w  # the kernel of a linear function is x x^T, for each output
        >>> x = jnp.array([[1.0, 0.0], [3.0, 4.0]])
        >>> ntk(f, jnp.zeros((2, 3)), x, outputs="trace").values.tolist()
        [[3.0, 9.0], [9.0, 75.0]]
    """
    for name, value, known in (
        ("outputs", outputs, OUTPUTS),
        ("pairs", pairs, ("all", "same")),
        ("method", method, ("auto", *METHODS)),
    ):
        if value not in known:
            raise TransformError(f"ntk: {name} {value!r} is not one of {', '.join(known)}")
    check_memory(memory, None)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, x1, x2))):
        raise TransformError(
            "ntk: it runs tile by tile from Python: call it outside jax.jit, or ntk_product inside"
        )
    if pairs == "same" and x2 is not None:
        raise TransformError("ntk: pairs='same' takes x1 alone: leave out x2")
    function = Function(f, separable)
    work = _Work.of(function, params, x1, x2, outputs, memory)
    if separable:
        _check_separable(f, params, work.x1)
    if method == "structured" and not separable:
        raise TransformError("ntk: 'structured' needs a separable function: take 'jacobian'")
    if pairs == "same":
        return _own_blocks(work, "jacobian" if method == "jacobian" else work.fewest_bytes())
    if method != "auto":
        values = _assembled(work, method)
        return Kernel(values, method, {}, work.tile(method))
    jacobians = [work.fewest_bytes()] if work.fewest_bytes() == "jacobian" else [*_MAKERS]
    seconds = {name: _seconds(work, name) for name in (*jacobians, "vector")}
    chosen = min(seconds, key=lambda name: seconds[name])
    return Kernel(_assembled(work, chosen), chosen, seconds, work.tile(chosen))


def ntk_product(
    f: Callable[[Params, PyTree], Array],
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    chunk: int | None = None,
) -> Callable[[Array], Array]:
    """The kernel as a function: from a vector over the outputs at x2 to one at x1.

    J(x1) (J(x2)^T v), at the price of a gradient and a forward derivative; no Jacobian is made. It
    makes no assumption on ``f`` as long as there are no chunks, and works inside ``jax.jit``.

    Args:
        f: as in ``ntk``.
        params: as in ``ntk``.
        x1: N1 examples.
        x2: N2 examples; those of ``x1`` if None.
        chunk: examples at a time, to save memory; each by itself then, as in evaluation.

    Returns:
        From (N2, ...) like ``f(params, x2)`` to (N1, ...) like ``f(params, x1)``.

    Raises:
        TransformError: a chunk below 1; a vector unlike the outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [3.0, 4.0]])
        >>> product = ntk_product(lambda w, x: x @ w, jnp.zeros((2, 1)), x)
        >>> product(jnp.array([[1.0], [1.0]])).tolist()  # rows of x x^T, summed
        [[4.0], [28.0]]
    """
    check_memory(1, chunk)
    x2 = x1 if x2 is None else x2
    wanted = jax.eval_shape(f, params, x2)

    def product(v: Array) -> Array:
        if v.shape != wanted.shape or v.dtype != wanted.dtype:
            raise TransformError(
                f"ntk_product: the vector is {v.dtype}{list(v.shape)}: give"
                f" {wanted.dtype}{list(wanted.shape)}, like the outputs at x2"
            )
        total = None
        for part in _pieces((x2, v), chunk):
            g = _pulled(f, params, *part)
            total = g if total is None else jax.tree.map(jnp.add, total, g)
        return jnp.concatenate([_pushed(f, params, part, total) for part in _pieces(x1, chunk)])

    return product


@functools.partial(jax.jit, static_argnums=0)
def _pulled(f, params, x, v):
    return jax.vjp(lambda params: f(params, x), params)[1](v)[0]


@functools.partial(jax.jit, static_argnums=0)
def _pushed(f, params, x, g):
    y, linear = linearised(lambda params: f(params, x), params)
    return both_ways(y, linear, params)[0](g)


def _pieces(tree: PyTree, chunk: int | None) -> list[PyTree]:
    count = jax.tree.leaves(tree)[0].shape[0]
    size = count if chunk is None else min(chunk, count)
    return [
        jax.tree.map(lambda leaf, at=at: leaf[at : at + size], tree) for at in range(0, count, size)
    ]


class _Work(NamedTuple):
    """A kernel that is to be computed."""

    function: Function
    params: Params
    x1: PyTree
    x2: PyTree | None
    outputs: str
    sizes: tuple[int, int, int]
    """Examples of x1, of x2, and outputs."""
    dtype: np.dtype
    memory: int

    @classmethod
    def of(cls, function, params, x1, x2, outputs, memory) -> _Work:
        x1, x2 = jax.tree.map(jnp.asarray, (x1, x2))
        y1 = _output_spec(function.f, params, x1)
        y2 = y1 if x2 is None else _output_spec(function.f, params, x2)
        if y1.shape[1:] != y2.shape[1:]:
            raise TransformError(
                f"ntk: the outputs are {list(y1.shape[1:])} at x1 and {list(y2.shape[1:])} at x2:"
                " give examples of one kind"
            )
        sizes = (y1.shape[0], y2.shape[0], math.prod(y1.shape[1:]))
        return cls(function, params, x1, x2, outputs, sizes, y1.dtype, memory)

    def tile(self, method: str) -> tuple[int, int]:
        """Rows and columns at a time; of ``"vector"`` a column is one output of one example."""
        rows, others, size = self.sizes
        if method in _MAKERS:
            # The rows' Jacobians and the columns', and a copy of one while it is made.
            fit = max(1, self.memory // (3 * _bytes(self.one_jacobian(method))))
            return min(rows, fit), min(others, fit)
        # A gradient for each column, and its forward derivatives for all rows.
        gradient = _bytes(self.params)
        fit = max(1, self.memory // (3 * gradient))
        return rows, min(others * size, fit)

    def one_jacobian(self, method: str) -> Any:
        """Shapes of one example's."""
        make = functools.partial(_MAKERS[method], self.function, 1)
        return jax.eval_shape(make, self.params, self.x1, 0)

    def fewest_bytes(self) -> str:
        """``"structured"`` where that leaves anything in factors, else ``"jacobian"``."""
        if not self.function.is_separable:
            return "jacobian"
        kept = self.one_jacobian("structured")
        return "structured" if any(isinstance(each, Factors) for each in kept) else "jacobian"


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _output_spec(f, params, x):
    y = jax.eval_shape(f, params, spec_of(x))
    count = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(x)}
    if not isinstance(y, jax.ShapeDtypeStruct) or {y.shape[:1]} != count:
        told = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", y)
        raise TransformError(
            f"ntk: f gives {told} for {sorted(count)} examples: one array, examples first"
        )
    return y


def _check_separable(f, params, x):
    """Two examples together, and the first alone: the same output, or they are not apart."""
    together, alone = map(np.asarray, _first(f, params, jax.tree.map(lambda leaf: leaf[:2], x)))
    near = float(np.finfo(together.dtype).eps) ** 0.5
    if not np.allclose(together, alone, near, near * max(1e-30, float(np.abs(together).max()))):
        raise TransformError(
            "ntk: f gives example 0 another output alone than in a batch (batch norm in training?"
            " dropout?): evaluate, or pass separable=False"
        )


@functools.partial(jax.jit, static_argnums=0)
def _first(f, params, two):
    return f(params, two)[0], f(params, jax.tree.map(lambda leaf: leaf[:1], two))[0]


def _own_blocks(work: _Work, method: str) -> Kernel:
    rows, _ = work.tile(method)
    found: list[Any] = [None] * work.sizes[0]
    for start in _starts(work.sizes[0], rows):
        block = with_itself(
            work.outputs, _MAKERS[method](work.function, rows, work.params, work.x1, start)
        )
        found[start : start + rows] = list(np.asarray(block))
    return Kernel(jnp.asarray(np.stack(found)), method, {}, (rows, rows))


def _starts(count: int, chunk: int) -> list[int]:
    """Where chunks of one size begin; the last overlaps rather than being shorter."""
    return [min(at, count - chunk) for at in range(0, count, chunk)]


def _seconds(work: _Work, method: str) -> float:
    """Of the whole kernel, from a tile that is computed twice: the first time compiles."""
    tile = work.tile(method)
    next(_tiles(work, method))
    began = time.perf_counter()
    next(_tiles(work, method))
    took = time.perf_counter() - began
    rows, others, size = work.sizes
    across = others * (size if method == "vector" else 1)
    tiles = math.ceil(rows / tile[0]) * math.ceil(across / tile[1])
    symmetric = work.x2 is None and method in _MAKERS
    return took * ((tiles + 1) / 2 if symmetric and tiles > 1 else tiles)


def _assembled(work: _Work, method: str) -> Array:
    rows, others, size = work.sizes
    behind = {"full": (size, size), "diagonal": (size,), "trace": ()}[work.outputs]
    if method in _MAKERS:
        values = np.zeros((rows, others, *behind), work.dtype)
        for at, across, tile in _tiles(work, method):
            values[at : at + tile.shape[0], across : across + tile.shape[1]] = tile
            if work.x2 is None:
                mirrored = np.swapaxes(tile, 0, 1)
                mirrored = np.swapaxes(mirrored, 2, 3) if work.outputs == "full" else mirrored
                values[across : across + tile.shape[1], at : at + tile.shape[0]] = mirrored
        return jnp.asarray(values)
    kept = (size,) if work.outputs == "full" else ()
    values = np.zeros((rows, *kept, others * size), work.dtype)
    for at, across, tile in _tiles(work, method):
        values[at : at + tile.shape[0], ..., across : across + tile.shape[-1]] = tile
    if work.outputs == "full":
        return jnp.asarray(values.reshape(rows, size, others, size).transpose(0, 2, 1, 3))
    values = values.reshape(rows, others, size)
    return jnp.asarray(values if work.outputs == "diagonal" else values.sum(-1))


def _tiles(work: _Work, method: str):
    """Row, column and values of each tile, one after the other."""
    x2 = work.x1 if work.x2 is None else work.x2
    rows, across = work.tile(method)
    count, others, size = work.sizes
    if method == "vector":
        for at in _starts(count, rows):
            for start in _starts(others * size, across):
                found = columns(
                    *(work.function, work.outputs == "full", rows, across),
                    *(work.params, work.x1, at, x2, start),
                )
                yield at, start, np.asarray(found)
        return
    make = _MAKERS[method]
    for at in _starts(count, rows):
        left = make(work.function, rows, work.params, work.x1, at)
        for start in _starts(others, across):
            if work.x2 is None and start < at:
                continue  # the mirror image of a tile that is there
            same = work.x2 is None and start == at
            right = left if same else make(work.function, across, work.params, x2, start)
            yield at, start, np.asarray(contracted(work.outputs, left, right))
