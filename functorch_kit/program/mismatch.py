"""Why a compiled program refuses its arguments, leaf by leaf."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from functorch_kit.errors import UserError
from functorch_kit.program.placement import misplaced
from functorch_kit.program.specs import describe, leaf_names
from functorch_kit.types import PyTree, path_name

_SHOWN = 4


class ProgramMismatch(UserError, TypeError):
    """A program was called with other shapes, dtypes, structure or placement than compiled for.

    The message is one line: the program, each wrong leaf with what came and what was expected,
    and what to do.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> double = program.compile(lambda x: 2 * x, jnp.zeros(3), name="double")
        >>> try:
        ...     double(jnp.zeros(4))
        ... except ProgramMismatch as error:
        ...     print(error)
        double: x is float32[4], compiled for float32[3]; pass that shape or compile another program
    """


def explain(
    name: str,
    argument_names: tuple[str, ...],
    specs: tuple[PyTree, ...],
    args: tuple[PyTree, ...],
    placed: tuple[PyTree, ...] | None = None,
) -> str | None:
    """Compare arguments with specs and say what is wrong.

    Args:
        name: the program's name, which the message begins with.
        argument_names: a name for each entry of ``specs``.
        specs: what the program was compiled for.
        args: what it was called with.
        placed: the shardings it was compiled for, like ``specs``; None if they do not matter.

    Returns:
        One line, or None if nothing is wrong with shapes, dtypes, structure and placement.

    Example:
        >>> import numpy as np
        >>> spec = {"x": jax.ShapeDtypeStruct((2,), np.float32)}
        >>> explain("step", ("batch",), (spec,), ({"x": np.zeros(2, np.int32)},))
        'step: batch/x is int32[2], compiled for float32[2]; pass that dtype or compile another ...'
    """
    wrong: list[str] = []
    kinds: set[str] = set()
    for index, argument in enumerate(argument_names):
        if index >= len(args):
            wrong.append(f"argument {argument} is missing")
            kinds.add("structure")
            continue
        found, kind = _compare(argument, specs[index], args[index])
        wrong += found
        kinds |= kind
    if len(args) > len(specs):
        wrong.append(f"{len(args)} arguments came, compiled for {len(specs)}")
        kinds.add("structure")
    if not wrong and placed is not None:
        wrong = _misplaced(argument_names, args, placed)
        kinds.add("sharding")
    if not wrong:
        return None
    if len(wrong) > _SHOWN:
        wrong[_SHOWN:] = [f"… and {len(wrong) - _SHOWN} more"]
    remedy = next(kind for kind in ("structure", "shape", "dtype", "sharding") if kind in kinds)
    return f"{name}: {'; '.join(wrong)}; pass that {remedy} or compile another program"


def _compare(argument: str, spec: PyTree, arg: PyTree) -> tuple[list[str], set[str]]:
    expected = dict(leaf_names(argument, spec))
    got = dict(leaf_names(argument, arg))
    wrong: list[str] = []
    kinds: set[str] = set()
    for path, leaf in expected.items():
        if path not in got:
            wrong.append(f"{path} is missing, compiled for {describe(leaf)}")
            kinds.add("structure")
        elif (came := describe(got[path])) != (want := describe(leaf)):
            wrong.append(f"{path} is {came}, compiled for {want}")
            is_array = "[" in came
            same_shape = came.partition("[")[2] == want.partition("[")[2]
            kinds.add("dtype" if same_shape or not is_array else "shape")
    for path, leaf in got.items():
        if path not in expected:
            wrong.append(f"{path} is {describe(leaf)}, compiled without it")
            kinds.add("structure")
    if not wrong and jax.tree.structure(spec) != jax.tree.structure(arg):
        wrong.append(_first_other_node(argument, spec, arg))
        kinds.add("structure")
    return wrong, kinds


def _misplaced(
    argument_names: tuple[str, ...], args: tuple[PyTree, ...], placed: tuple[PyTree, ...]
) -> list[str]:
    wrong: list[str] = []
    for argument, arg, shardings in zip(argument_names, args, placed, strict=True):
        wanted = jax.tree.leaves(shardings, is_leaf=lambda leaf: leaf is None)
        leaves = leaf_names(argument, arg)
        for (path, leaf), sharding in zip(leaves, wanted, strict=False):
            if found := misplaced(sharding, leaf):
                wrong.append(f"{path} is {found[0]}, compiled to be {found[1]}")
    return wrong


def explain_keywords(name: str, fn: Callable[..., Any], static: Mapping[str, Any]) -> str:
    """Say why arguments given by name are refused: what has a name is static, and compiled in.

    Args:
        name: the program's name.
        fn: the function that was compiled.
        static: the arguments given by name.

    Returns:
        One line.

    Example:
        >>> from functools import partial
        >>> def step(x, train=True):
        ...     return x
        >>> explain_keywords("step", partial(step, train=True), {"train": False})
        'step: train=False came by name, compiled with train=True; arguments go by ...'
    """
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = {}
    said: list[str] = []
    for key, value in static.items():
        bound = parameters[key].default if key in parameters else inspect.Parameter.empty
        compiled = (
            "" if bound is inspect.Parameter.empty else f", compiled with {_assigned(key, bound)}"
        )
        said.append(f"{_assigned(key, value)} came by name{compiled}")
    return (
        f"{name}: {'; '.join(said)}; arguments go by position, and for another static value"
        " compile another program"
    )


def _assigned(key: str, value: Any) -> str:
    plain = isinstance(value, bool | int | float | str)
    return f"{key}={value!r}" if plain else f"{key} ({describe(value)})"


def _first_other_node(name: str, spec: PyTree, arg: PyTree) -> str:
    """Where all leaves agree by address, find the node that is of another type."""
    if type(spec) is type(arg):
        for (path, one), (_, other) in zip(_children(spec), _children(arg), strict=False):
            if jax.tree.structure(one) != jax.tree.structure(other):
                return _first_other_node(f"{name}/{path_name(path)}", one, other)
        return f"{name} is another {type(arg).__name__} than the one it was compiled for"
    return f"{name} is a {type(arg).__name__}, compiled for a {type(spec).__name__}"


def _children(tree: PyTree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: node is not tree)
