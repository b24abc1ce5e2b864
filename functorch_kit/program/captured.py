"""Arrays that a function brings along from outside: frozen into the program, and never freed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from functorch_kit.program.closure import variable_name
from functorch_kit.program.contract import ProgramRefused
from functorch_kit.program.specs import describe, size_in_bytes

CAPTURED_BYTES = 4096
"""The largest array that a program may capture: a table of labels, a mask of a few tokens."""

_LIBRARY = str(Path(jax.__file__).parent)
_TOOLKIT = str(Path(__file__).parents[1])


def check_captured(name: str, fn: Any, jaxpr: ClosedJaxpr, limit: int = CAPTURED_BYTES) -> None:
    """Refuse a traced function that captured an array larger than ``limit`` bytes.

    A captured array is a constant of the program: another value is not seen, it is stored once
    more for every program, and XLA may fold it for minutes.

    Args:
        name: the program's name, which the message begins with.
        fn: the function, in whose closure the array's name is looked for.
        jaxpr: the function, traced.
        limit: bytes that one captured array may have.

    Raises:
        ProgramRefused: naming the array, and the line that uses it, where they can be found.

    Example:
        >>> import jax.numpy as jnp
        >>> table = jnp.zeros(5000)
        >>> look_up = lambda i: table[i]
        >>> try:
        ...     check_captured("look_up", look_up, jax.make_jaxpr(look_up)(3))
        ... except ProgramRefused as error:
        ...     print(str(error).partition(", used")[0])
        look_up: it captures table, float32[5000] of 20.0 kB
    """
    for value, where in _constants(jaxpr):
        size = size_in_bytes(jax.typeof(value))
        if size > limit:
            called = variable_name(fn, value)
            what = f"{called}, {describe(value)}" if called else f"a {describe(value)}"
            place = _place(_reader(*where))
            used = f", used at {place}" if place else ""
            raise ProgramRefused(
                f"{name}: it captures {what} of {size / 1000:.1f} kB{used};"
                " pass it as an argument (part of the parameters, the model's state or the batch)"
            )


_Where = tuple[Jaxpr, Any]
"""A jaxpr and the variable, or the literal, that the captured value is in it."""


def _constants(jaxpr: ClosedJaxpr) -> Iterator[tuple[Any, _Where]]:
    """Each captured value at any depth, and where it enters."""
    for variable, value in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        yield value, (jaxpr.jaxpr, variable)
    for eqn in jaxpr.jaxpr.eqns:
        for variable in eqn.invars:
            if isinstance(variable, Literal):
                yield variable.val, (jaxpr.jaxpr, variable)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda leaf: isinstance(leaf, ClosedJaxpr)
        ):
            if isinstance(inner, ClosedJaxpr):
                yield from _constants(inner)


def _reader(jaxpr: Jaxpr, variable: Any) -> JaxprEqn | None:
    """The innermost equation that reads a variable: of a loop, the one in its body."""
    for eqn in jaxpr.eqns:
        for index, operand in enumerate(eqn.invars):
            if operand is not variable:
                continue
            for inner in jaxprs_in_params(eqn.params):
                # The operands of the body come last: before them stand a condition's own.
                at = index - (len(eqn.invars) - len(inner.invars))
                if at >= 0 and inner.invars[at].aval == variable.aval:
                    found = _reader(inner, inner.invars[at])
                    if found is not None:
                        return found
            return eqn
    return None


def _place(eqn: JaxprEqn | None) -> str | None:
    """``model.py:31``: the innermost line of the user's; None where JAX kept none."""
    traceback = eqn.source_info.traceback if eqn is not None else None
    for frame in [] if traceback is None else traceback.frames:
        if not frame.file_name.startswith((_LIBRARY, _TOOLKIT)):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return None
