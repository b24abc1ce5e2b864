"""How named parts are applied: rematerialised, or frozen, by their paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from functorch_kit.nn.scope import current_path
from functorch_kit.types import path_matches

Apply = Callable[..., tuple[Any, Any]]


class _Treatment(NamedTuple):
    remat: tuple[str, ...]
    policy: Callable[..., bool] | None
    frozen: tuple[str, ...]
    seen: set[str]
    """Patterns that named a part so far."""


_treatment: ContextVar[_Treatment | None] = ContextVar("functorch_kit_treatment", default=None)


@contextmanager
def treated(
    *,
    remat: Sequence[str] = (),
    policy: Callable[..., bool] | None = None,
    frozen: Sequence[str] = (),
) -> Iterator[set[str]]:
    """Apply parts in another way, whatever model they stand in.

    It holds for parts that combinators name, not for foreign models, whose parts have no paths.

    Args:
        remat: path patterns of parts whose inner values are computed again on the way back instead
            of being kept; see ``jax.checkpoint``.
        policy: which inner values are kept all the same, from ``jax.checkpoint_policies``.
        frozen: path patterns of parts that are applied as in evaluation: running statistics in
            batch norm, no dropout.

    Yields:
        A set that fills with the patterns that named a part.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.serial(hidden=nn.dense(8), head=nn.dense(1))
        >>> params, _ = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> with nn.treated(remat=["hidden"]) as seen:
        ...     jaxpr = jax.make_jaxpr(lambda p: model.apply(p, (), jnp.ones((2, 3))))(params)
        >>> seen, "remat" in str(jaxpr) or "checkpoint" in str(jaxpr)
        ({'hidden'}, True)
    """
    seen: set[str] = set()
    token = _treatment.set(_Treatment(tuple(remat), policy, tuple(frozen), seen))
    try:
        yield seen
    finally:
        _treatment.reset(token)


def treat(apply: Apply, train: bool) -> tuple[Apply, bool]:
    """How the current part is to be applied; untouched where nothing was asked for.

    Example:
        >>> def apply(params, model_state, x, *, key=None, train=False):
        ...     return x, model_state
        >>> treat(apply, True) == (apply, True)
        True
    """
    how = _treatment.get()
    if how is None:
        return apply, train
    path = current_path()
    frozen = {pattern for pattern in how.frozen if path_matches(pattern, path)}
    # Only the outermost part that a pattern names: what is below it is recomputed with it.
    above = path.rpartition("/")[0]
    remat = {pattern for pattern in how.remat if path_matches(pattern, path)}
    outermost = remat and not (above and any(path_matches(each, above) for each in how.remat))
    how.seen.update(frozen, remat)
    train = train and not frozen
    return (rematerialised(apply, how.policy) if outermost else apply), train


def rematerialised(apply: Apply, policy: Callable[..., bool] | None = None) -> Apply:
    """An ``apply`` whose inner values are computed again on the way back; see ``jax.checkpoint``.

    Example:
        >>> def apply(params, model_state, x, *, key=None, train=False):
        ...     return 2 * x, model_state
        >>> rematerialised(apply)((), (), 3.0)[0].item()
        6.0
    """

    def again(params, model_state, x, *, key=None, train=False):
        def inner(params, model_state, x, key):
            return apply(params, model_state, x, key=key, train=train)

        return jax.checkpoint(inner, policy=policy)(params, model_state, x, key)

    return again
