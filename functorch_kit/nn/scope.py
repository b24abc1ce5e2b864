"""One name for what passes through a part, shared by summary, remat, profile and replay."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

_path: ContextVar[tuple[str, ...]] = ContextVar("functorch_kit_path", default=())
_place: ContextVar[Callable[[str, Any], Any] | None] = ContextVar(
    "functorch_kit_place", default=None
)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Enter the part called ``name``: its operations carry the name in jaxpr, HLO and profile.

    An error raised inside carries a note with the part's full path.

    Args:
        name: one step of the path; no slash.

    Example:
        >>> with scope("blocks"), scope("3"):
        ...     print(current_path())
        blocks/3
    """
    token = _path.set((*_path.get(), name))
    try:
        with jax.named_scope(name):
            yield
    except Exception as error:
        _note_once(error)
        raise
    finally:
        _path.reset(token)


def current_path() -> str:
    """The path of the part being applied, like ``blocks/3/attention``; empty at the root.

    Example:
        >>> current_path()
        ''
    """
    return "/".join(_path.get())


def tag(y: Any) -> Any:
    """Mark every traced leaf of ``y`` as the output of the current part.

    Concrete arrays pass untouched, so that op-by-op execution costs nothing more.

    Example:
        >>> import jax
        >>> def f(x):
        ...     with scope("double"):
        ...         return tag(2 * x)
        >>> "name=double" in str(jax.make_jaxpr(f)(1.0))
        True
    """
    path, place = current_path(), _place.get()

    def mark(leaf: Any) -> Any:
        if not isinstance(leaf, Tracer):
            return leaf
        return checkpoint_name(leaf if place is None else place(path, leaf), path)

    return jax.tree.map(mark, y)


@contextmanager
def placed(place: Callable[[str, Any], Any]) -> Iterator[None]:
    """Pass every traced output of a part through a function, which says on which devices it lies.

    Args:
        place: ``place(path, leaf) -> leaf``, of the same values.

    Example:
        >>> seen = []
        >>> def place(path, leaf):
        ...     seen.append((path, leaf.shape))
        ...     return leaf
        >>> def f(x):
        ...     with scope("double"):
        ...         return tag(2 * x)
        >>> with placed(place):
        ...     _ = jax.eval_shape(f, jax.ShapeDtypeStruct((3,), "float32"))
        >>> seen
        [('double', (3,))]
    """
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def part_key(key: jax.Array | None, name: str) -> jax.Array | None:
    """The key of the part called ``name``: it does not change when other parts come or go.

    Example:
        >>> import jax
        >>> part_key(None, "conv") is None
        True
        >>> bool(part_key(jax.random.key(0), "a") == part_key(jax.random.key(0), "b"))
        False
    """
    return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))


def _note_once(error: Exception) -> None:
    if not any(note.startswith("in part ") for note in getattr(error, "__notes__", ())):
        error.add_note(f"in part {current_path()!r}")
