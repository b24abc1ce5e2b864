"""What one call hands to the next, and the Python function inside a compiled one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from functorch_kit.program.executable import Program
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
