"""What a function brings along, by name: its closure, its globals, and what lies in those."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_VISITED_AT_MOST = 20_000


def variable_name(fn: Any, value: Any) -> str | None:
    """What a captured array is called where the function found it.

    Args:
        fn: the function; its closure, its globals, bound arguments and the functions and
            containers in them are searched.
        value: the array, as it stands in the jaxpr.

    Returns:
        ``table`` or ``model/masks/0``, or None if it is not found (it may have been computed).

    Example:
        >>> masks = [np.zeros(9), np.ones(9)]
        >>> variable_name(lambda x: x * masks[1], np.ones(9))
        'masks/1'
    """
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", fn)]
    for label, found in queue:  # breadth first: the shortest name wins
        if id(found) in seen or len(seen) > _VISITED_AT_MOST:
            continue
        seen.add(id(found))
        if not isinstance(found, jax.Array | np.ndarray):
            queue += _inside(label, found)
        elif _same(found, value):
            return label or None
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether it is the array, or a copy: JAX holds one of a NumPy array, perhaps in 32 bits."""
    if one is other:
        return True
    unreadable = isinstance(one, jax.Array) and (isinstance(one, Tracer) or one.is_deleted())
    if unreadable or one.shape != other.shape or not (_plain(one) and _plain(other)):
        return False
    copy = np.asarray(other)
    return bool((np.asarray(one).astype(copy.dtype) == copy).all())


def _plain(array: Any) -> bool:
    """Numbers: no typed keys, no objects, no text."""
    return any(jnp.issubdtype(array.dtype, kind) for kind in (np.number, np.bool_))


def _inside(label: str, found: Any) -> Iterator[tuple[str, Any]]:
    prefix = f"{label}/" if label else ""
    match found:
        case FunctionType():
            yield from _of_function(label, found)
        case MethodType():
            yield from ((label, found.__func__), (label or "self", found.__self__))
        case functools.partial():
            yield label, found.func
            yield from ((f"args/{i}", value) for i, value in enumerate(found.args))
            yield from found.keywords.items()
        case dict():
            yield from ((f"{prefix}{key}", value) for key, value in found.items())
        case tuple() | list():
            names = getattr(found, "_fields", range(len(found)))
            yield from ((f"{prefix}{name}", part) for name, part in zip(names, found, strict=True))
        case ModuleType() | type():
            pass
        case _ if type(found).__module__.partition(".")[0] not in sys.stdlib_module_names:
            yield label, getattr(found, "__wrapped__", None)  # a jitted function, a Program
            parts = getattr(found, "__dict__", {})
            yield from ((f"{prefix}{name}", part) for name, part in parts.items())


def _of_function(label: str, fn: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue
    names = _global_names(fn.__code__)
    yield from ((name, fn.__globals__[name]) for name in names if name in fn.__globals__)
    yield from (fn.__kwdefaults__ or {}).items()
    yield from (("a default argument", value) for value in fn.__defaults__ or ())
    yield label, getattr(fn, "__wrapped__", None)


def _global_names(code: CodeType) -> list[str]:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [*code.co_names, *(name for each in inner for name in _global_names(each))]
