"""What a program is compiled for: specs of any arguments, in words and by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, NamedSharding

from functorch_kit.types import PyTree, Spec, path_name


def to_spec(tree: PyTree) -> Spec:
    """Replace each leaf by its ``jax.ShapeDtypeStruct``; specs stay as they are.

    A Python number becomes a weakly typed scalar, as it would inside ``jax.jit``.

    Args:
        tree: a pytree of arrays, Python numbers and ``jax.ShapeDtypeStruct``s.

    Returns:
        The same structure with a spec for each leaf.

    Raises:
        TypeError: a leaf is nothing that JAX can take as an argument.

    Example:
        >>> import jax.numpy as jnp
        >>> describe(to_spec({"x": jnp.zeros((2, 3)), "scale": 2.0})["scale"])
        'float32[]'
    """
    return jax.tree.map(_leaf_spec, tree)


def _leaf_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    aval: Any = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def describe(leaf: Any) -> str:
    """A leaf in one word: ``float32[8,3]``, or the type's name if it is no array.

    Example:
        >>> import numpy as np
        >>> describe(np.zeros((8, 3), np.int32)), describe("text")
        ('int32[8,3]', 'str')
    """
    try:
        leaf = jax.typeof(leaf)  # a NumPy array as JAX would take it: float64 may be float32
    except TypeError:
        if not isinstance(leaf, jax.ShapeDtypeStruct) and not hasattr(leaf, "weak_type"):
            return type(leaf).__name__
    except OverflowError:
        return f"{leaf} (too large)"
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return str(leaf)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def size_in_bytes(spec: Any) -> int:
    """Bytes of one leaf on the device; a typed PRNG key counts the words that it is made of.

    Where the leaf is spread over several devices, the bytes on one of them.

    Example:
        >>> import jax.numpy as jnp
        >>> size_in_bytes(jax.ShapeDtypeStruct((2, 3), jnp.bfloat16))
        12
    """
    sharding = getattr(spec, "sharding", None)
    if not isinstance(sharding, NamedSharding) or isinstance(sharding.mesh, AbstractMesh):
        return int(spec.size) * int(spec.dtype.itemsize)
    return math.prod(sharding.shard_shape(spec.shape)) * int(spec.dtype.itemsize)


def argument_names(fn: Callable[..., Any], count: int) -> tuple[str, ...]:
    """Names of the first ``count`` positional arguments, as the function's signature has them.

    Args:
        fn: any callable.
        count: how many names are wanted.

    Returns:
        ``count`` names; ``arg2`` where the signature has none to give.

    Example:
        >>> argument_names(lambda state, *batches: state, 3)
        ('state', 'batches/0', 'batches/1')
    """
    kinds = inspect.Parameter
    names: list[str] = []
    rest = "arg"
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = []
    for parameter in parameters:
        if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
        elif parameter.kind == kinds.VAR_POSITIONAL:
            rest = parameter.name + "/"
    start = len(names) if rest != "arg" else 0
    names += [f"{rest}{index - start}" for index in range(len(names), count)]
    return tuple(names[:count])


def leaf_names(name: str, tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of one argument with their addresses, the argument's name first.

    Example:
        >>> leaf_names("state", {"w": 1, "b": (2, 3)})
        [('state/b/0', 2), ('state/b/1', 3), ('state/w', 1)]
    """
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(filter(None, (name, path_name(path)))), leaf) for path, leaf in flat]
