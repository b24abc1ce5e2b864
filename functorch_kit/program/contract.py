"""What a function must be like to become a program: checked once, while it is compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from functorch_kit.errors import UserError
from functorch_kit.program.specs import describe, leaf_names
from functorch_kit.types import PyTree

_SHOWN = 4
_DEPENDS = re.compile(r"depends on the value of the argument (\S+)\.")
_BIND = "bind it before compiling (functools.partial) and compile a program for each of its values"


class ProgramRefused(UserError, TypeError):
    """A function that cannot become a program; said while compiling, before any step is run.

    The message is one line: the program, what is wrong and where, and what to do.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> try:
        ...     program.compile(lambda x, mode: x, jnp.zeros(3), "train", name="step")
        ... except ProgramRefused as error:
        ...     print(str(error).partition(";")[0])
        step: mode is 'train', no array but a static value
    """


def check_arguments(name: str, argument_names: tuple[str, ...], specs: tuple[PyTree, ...]) -> None:
    """Refuse static values among the arguments: a compiled program has none.

    A Python bool is one: whoever passes ``train=True`` wants Python to branch on it.

    Args:
        name: the program's name, which the message begins with.
        argument_names: a name for each of ``specs``.
        specs: what ``compile`` was given.

    Raises:
        ProgramRefused: a leaf is a bool, or nothing that JAX takes as an array.

    Example:
        >>> check_arguments("step", ("x", "scale"), ({"a": jax.numpy.zeros(3)}, 2.0))
    """
    for argument, spec in zip(argument_names, specs, strict=True):
        for path, leaf in leaf_names(argument, spec):
            if isinstance(leaf, bool):
                kind = "a Python bool, which is static"
            elif "[" in describe(leaf):
                continue
            else:
                kind = "no array but a static value"
            shown = repr(leaf) if isinstance(leaf, bool | str) else f"a {type(leaf).__name__}"
            raise ProgramRefused(f"{name}: {path} is {shown}, {kind}; {_BIND}")


@contextmanager
def tracing(
    name: str, argument_names: tuple[str, ...], specs: tuple[PyTree, ...]
) -> Iterator[None]:
    """While a function is traced: name the scalar argument whose value Python asks for.

    What Python asks of a whole array is left to JAX's own words, for it may be a ``lax.cond``.

    Args:
        name: the program's name, which the message begins with.
        argument_names: a name for each of ``specs``.
        specs: the arguments, arrays or specs.

    Raises:
        ProgramRefused: in place of JAX's error.

    Example:
        >>> import jax.numpy as jnp
        >>> flag = jax.ShapeDtypeStruct((), bool)
        >>> try:
        ...     with tracing("step", ("x", "train"), (jnp.zeros(3), flag)):
        ...         jax.eval_shape(lambda x, train: x if train else -x, jnp.zeros(3), flag)
        ... except ProgramRefused as error:
        ...     print(str(error).partition(";")[0])
        step: train is a traced bool[], but Python needs its value: it is static
    """
    try:
        yield
    except TypeError as error:
        message = _needs_value(name, argument_names, specs, error)
        if message is None:
            raise
        raise ProgramRefused(message) from error


def _needs_value(
    name: str, argument_names: tuple[str, ...], specs: tuple[PyTree, ...], error: Exception
) -> str | None:
    found = _DEPENDS.search(str(error))
    if found is None:
        return None
    # JAX writes flags['train'].x[0] where this toolkit writes flags/train/x/0.
    path = re.sub(r"\['?|\.", "/", re.sub(r"'?\]", "", found[1]))
    for argument, spec in zip(argument_names, specs, strict=True):
        for other, leaf in leaf_names(argument, spec):
            if other == path and leaf.shape == ():
                return (
                    f"{name}: {path} is a traced {describe(leaf)}, but Python needs its value:"
                    f" it is static; {_BIND}"
                )
    return None


def check_carry(name: str, argument: str, before: PyTree, after: PyTree) -> None:
    """Refuse a step whose state comes out other than it went in: the next call could not take it.

    Args:
        name: the program's name.
        argument: what the state is called.
        before: the state as the step takes it: arrays, tracers or specs.
        after: the state as the step returns it.

    Raises:
        ProgramRefused: a leaf differs in shape, dtype or weak type, or is missing or new.

    Example:
        >>> from functorch_kit.errors import UserError
        >>> half = jax.ShapeDtypeStruct((3,), "bfloat16")
        >>> try:
        ...     check_carry("step", "state", {"w": jax.numpy.zeros(3)}, {"w": half})
        ... except UserError as error:
        ...     print(str(error).partition(";")[0])
        step: state/w goes in as float32[3] and comes out as bfloat16[3]
    """
    took, gave = dict(leaf_names(argument, before)), dict(leaf_names(argument, after))
    wrong = [
        f"{path} goes in as {one} and comes out as {other}"
        for path, one, other in (
            (
                path,
                _strong_or_weak(leaf),
                _strong_or_weak(gave[path]) if path in gave else "nothing",
            )
            for path, leaf in took.items()
        )
        if one != other
    ]
    wrong += [f"{path} comes out but did not go in" for path in gave if path not in took]
    if not wrong and jax.tree.structure(before) != jax.tree.structure(after):
        wrong = [f"{argument} comes out with containers of other types"]
    if wrong:
        if len(wrong) > _SHOWN:
            wrong[_SHOWN:] = [f"… and {len(wrong) - _SHOWN} more"]
        raise ProgramRefused(
            f"{name}: {'; '.join(wrong)}; return the state as it was taken (a cast: .astype)"
        )


def carried(spec: PyTree, output: PyTree) -> PyTree:
    """What of a function's output is the state: the whole, or the first item of a plain tuple.

    Example:
        >>> carried({"w": 0}, ({"w": 1}, "metrics")), carried((0, 0), (1, 1))
        ({'w': 1}, (1, 1))
    """
    whole = jax.tree.structure(spec) == jax.tree.structure(output)
    return output[0] if type(output) is tuple and output and not whole else output


def _strong_or_weak(leaf: Any) -> str:
    """A weak leaf would promote other dtypes than the strong one does, step by step in eager."""
    aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    weak = "weakly typed " if getattr(aval, "weak_type", False) else ""
    return weak + describe(leaf)
