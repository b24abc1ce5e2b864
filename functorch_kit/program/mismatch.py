"""Why a compiled program refuses its arguments, leaf by leaf."""

from __future__ import annotations

from typing import Any

import jax

from functorch_kit.errors import UserError
from functorch_kit.program.specs import describe, leaf_names
from functorch_kit.types import PyTree, path_name

_SHOWN = 4


class ProgramMismatch(UserError, TypeError):
    """A program was called with other shapes, dtypes or structure than it was compiled for.

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
    name: str, argument_names: tuple[str, ...], specs: tuple[PyTree, ...], args: tuple[PyTree, ...]
) -> str | None:
    """Compare arguments with specs and say what is wrong.

    Args:
        name: the program's name, which the message begins with.
        argument_names: a name for each entry of ``specs``.
        specs: what the program was compiled for.
        args: what it was called with.

    Returns:
        One line, or None if nothing is wrong with shapes, dtypes and structure.

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
    if not wrong:
        return None
    if len(wrong) > _SHOWN:
        wrong[_SHOWN:] = [f"… and {len(wrong) - _SHOWN} more"]
    remedy = next(kind for kind in ("structure", "shape", "dtype") if kind in kinds)
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
