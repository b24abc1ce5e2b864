"""The ways to run one function: op by op, without jit, jitted, ahead of time, inside a scan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.program.executable import Program, compile
from functorch_kit.program.specs import describe, leaf_names
from functorch_kit.types import PyTree

Arguments = tuple[PyTree, ...]


def as_written(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The Python function inside a jitted function or a ``Program``; any other is returned as is.

    Other decorators are left alone: ``jax.grad(f)``, too, has a ``__wrapped__``, and it is ``f``.

    Example:
        >>> def double(x):
        ...     return 2 * x
        >>> as_written(jax.jit(double)) is double
        True
    """
    while isinstance(fn, jax.stages.Wrapped | Program) and hasattr(fn, "__wrapped__"):
        fn = getattr(fn, "__wrapped__")  # noqa: B009 (the protocol does not list it)
    return fn


class Threading:
    """How one call's result becomes the next call's argument.

    Args:
        carry: which argument the function's output replaces; None if none does.

    Example:
        >>> threading = Threading(0)
        >>> threading.advance((1, "batch"), (2, "metrics"))
        (2, 'batch')
    """

    def __init__(self, carry: int | None) -> None:
        self.carry = carry
        self._whole: bool | None = None

    def split(self, args: Arguments, output: PyTree) -> tuple[PyTree, tuple[PyTree, ...]]:
        """The part of the output that goes on, and the rest.

        Raises:
            TypeError: neither the output nor its first item is like the argument it replaces.
        """
        if self._whole is None:  # found once: comparing structures would cost every timed step
            self._whole = self._is_whole(args, output)
        return (output, ()) if self._whole else (output[0], tuple(output[1:]))

    def _is_whole(self, args: Arguments, output: PyTree) -> bool:
        assert self.carry is not None
        structure = jax.tree.structure(args[self.carry])
        if jax.tree.structure(output) == structure:
            return True
        first = next(iter(output), None) if isinstance(output, tuple) else None
        if first is not None and jax.tree.structure(first) == structure:
            return False
        raise TypeError(
            f"carry={self.carry}: neither the output nor its first item has the structure of"
            f" argument {self.carry}; return what is to be carried, first in a tuple"
        )

    def advance(self, args: Arguments, output: PyTree) -> Arguments:
        """The arguments of the next call."""
        return args if self.carry is None else self.replace(args, self.split(args, output)[0])

    def replace(self, args: Arguments, value: PyTree) -> Arguments:
        """The arguments with another value of the carry."""
        position = self.carry
        return tuple(value if index == position else arg for index, arg in enumerate(args))

    def complaint(self, args: Arguments, output: PyTree) -> str | None:
        """What keeps the output from being carried, from shapes alone; None if nothing does."""
        if self.carry is None:
            return None
        try:
            value, _ = self.split(args, output)
        except TypeError as error:
            return str(error)
        before = leaf_names("", args[self.carry])
        for (name, one), (_, other) in zip(before, leaf_names("", value), strict=True):
            if describe(one) != describe(other):
                return (
                    f"carry={self.carry}: {name or 'it'} goes in as {describe(one)} and comes out"
                    f" as {describe(other)}; a carry keeps its shape and dtype"
                )
        return None


class Variant:
    """One way to run the function: here as it is written, JAX dispatching operation by operation.

    Args:
        fn: the function, not jitted.
        threading: what is carried from call to call.
        length: steps per call, for variants that do more than one.

    Example:
        >>> eager = Variant(jnp.sin, Threading(None), 1)
        >>> float(eager.run((0.0,), steps=3))
        0.0
    """

    def __init__(self, fn: Callable[..., Any], threading: Threading, length: int) -> None:
        self.fn = fn
        self.threading = threading
        self.length = length
        self.steps_per_call = 1
        self.call: Callable[[Arguments], Any] = lambda args: fn(*args)

    def build(self, args: Arguments) -> None:
        """Do what this variant does before its first call; sets ``call``."""

    def prepare(self, args: Arguments) -> Arguments:
        """Turn the function's arguments into those of ``call``; outside the timing."""
        return args

    def advance(self, args: Arguments, output: Any) -> Arguments:
        """The next call's arguments, from this call's and its output."""
        return self.threading.advance(args, output)

    def run(self, args: Arguments, steps: int) -> PyTree:
        """What the function returns at the last of ``steps`` steps."""
        # Without a carry every call is the same: one is as good as many.
        for _ in range(steps if self.threading.carry is not None else 1):
            output = self.call(args)
            args = self.advance(args, output)
        return output  # pyright: ignore[reportPossiblyUnboundVariable]


class DisableJit(Variant):
    """Under ``jax.disable_jit``: even JAX's own functions run as Python."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        def call(args: Arguments) -> Any:
            with jax.disable_jit():
                return self.fn(*args)

        self.call = call


class Jit(Variant):
    """``jax.jit``, which compiles at the first call."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        # A function of its own: JAX would find an earlier compilation of `fn` in its memory.
        @functools.wraps(self.fn)
        def fresh(*args: Any) -> Any:
            return self.fn(*args)

        jitted = jax.jit(fresh)
        self.call = lambda args: jitted(*args)


class AheadOfTime(Variant):
    """A ``Program``, compiled from shapes before the first call."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        # What it captures is the caller's affair here: the other variants take it, too.
        program = compile(self.fn, *args, name="aot", captured_bytes=None)
        self.call = lambda args: program(*args)


class CarryScan(Variant):
    """One program of ``length`` steps, each from the carry of the one before."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        self.steps_per_call = self.length
        program = self._program(self.length, args)
        self.call = lambda args: program(*args)

    def _program(self, length: int, args: Arguments) -> Program:
        carry = self.threading.carry
        assert carry is not None

        def scanned(*args: PyTree) -> tuple[PyTree, PyTree]:
            def step(value: PyTree, _: None) -> tuple[PyTree, PyTree]:
                now = self.threading.replace(args, value)
                return self.threading.split(now, self.fn(*now))

            return jax.lax.scan(step, args[carry], None, length=length)

        return compile(scanned, *args, name=f"scan of {length}", captured_bytes=None)

    def advance(self, args: Arguments, output: Any) -> Arguments:  # noqa: D102
        return self.threading.replace(args, output[0])

    def run(self, args: Arguments, steps: int) -> PyTree:  # noqa: D102
        whole, left = divmod(steps, self.length)
        calls = [self.call] * whole
        if left:
            rest = self._program(left, args)
            calls.append(lambda args: rest(*args))
        for call in calls:
            output = call(args)
            args = self.advance(args, output)
        value, others = output  # pyright: ignore[reportPossiblyUnboundVariable]
        return (value, *jax.tree.map(_last, others)) if others else value


class MapScan(Variant):
    """One program of ``length`` independent steps, each on a copy of the arguments of its own.

    On one and the same copy XLA would do the work once, in front of the loop.
    """

    def build(self, args: Arguments) -> None:  # noqa: D102
        self.steps_per_call = self.length
        leaves, structure = jax.tree.flatten(args)

        def step(_: None, arrays: list[jax.Array]) -> tuple[None, PyTree]:
            given = iter(arrays)
            whole = [leaf if _is_number(leaf) else next(given) for leaf in leaves]
            return None, self.fn(*jax.tree.unflatten(structure, whole))

        stacks = [
            jax.ShapeDtypeStruct((self.length, *leaf.shape), leaf.dtype)
            for leaf in leaves
            if not _is_number(leaf)
        ]
        program = compile(
            lambda stacked: jax.lax.scan(step, None, stacked, length=self.length)[1],
            stacks,
            name=f"scan of {self.length}",
            captured_bytes=None,
        )
        self.call = lambda args: program(*args)

    def prepare(self, args: Arguments) -> Arguments:  # noqa: D102
        # A Python number stays one: as an array it would promote other dtypes.
        arrays = [leaf for leaf in jax.tree.leaves(args) if not _is_number(leaf)]
        return ([jnp.stack([leaf] * self.length) for leaf in arrays],)

    def run(self, args: Arguments, steps: int) -> PyTree:  # noqa: D102
        return jax.tree.map(_last, self.call(self.prepare(args)))


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex)


def _last(leaf: jax.Array) -> jax.Array:
    return leaf[-1]


def make_variant(name: str, fn: Callable[..., Any], threading: Threading, length: int) -> Variant:
    """The variant of that name (one of ``VARIANTS``), not built yet.

    Example:
        >>> type(make_variant("scan", jnp.sin, Threading(None), 10)).__name__
        'MapScan'
    """
    kind = VARIANTS[name]
    if kind is CarryScan and threading.carry is None:
        kind = MapScan
    return kind(fn, threading, length)


VARIANTS: dict[str, type[Variant]] = {
    "eager": Variant,
    "disable_jit": DisableJit,
    "jit": Jit,
    "aot": AheadOfTime,
    "scan": CarryScan,
}
"""Name -> how the function is run."""
