"""Haiku: its functions as a Model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.interop.errors import InteropError, library
from functorch_kit.interop.modes import Flags, flags_of
from functorch_kit.types import Model


def from_haiku(function: Any, *, flags: Flags | None = None) -> Model:
    """A function that uses Haiku's modules as a Model.

    Args:
        function: ``function(x, **flags)``, as it is given to ``hk.transform_with_state``; or what
            ``hk.transform`` or ``hk.transform_with_state`` have made of it.
        flags: ``flags(train)`` returns the keyword arguments that tell it whether it trains; by the
            names that it takes if None, see ``flags_of``. What is transformed already has no names
            to go by: give them if it takes any.

    Returns:
        A Model whose params and model_state are dicts of Haiku's modules by name, such as
        ``mlp/~/linear_0``.

    Raises:
        InteropError: what cannot be called so.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> model = from_haiku(lambda x: hk.Linear(3, name="head")(x))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["head"]["w"].shape, state
        ((4, 3), ())
    """
    haiku: Any = library("haiku", "dm-haiku")
    if isinstance(function, haiku.MultiTransformed | haiku.MultiTransformedWithState):
        raise InteropError("from_haiku: several functions are no Model: give hk.transform of one")
    if isinstance(function, haiku.Transformed):
        function = haiku.with_empty_state(function)
    if isinstance(function, haiku.TransformedWithState):
        told, transformed = flags or (lambda train: {}), function
    else:
        told, transformed = flags or flags_of(function), haiku.transform_with_state(function)

    def init(key, x_spec):
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x_spec)
        params, state = transformed.init(key, x, **told(True))  # BatchNorm knows no mean yet
        return _plain(params), _plain(state) or ()

    def apply(params, model_state, x, *, key=None, train=False):
        y, state = transformed.apply(params, model_state or {}, key, x, **told(train))
        return y, _plain(state) or ()

    return Model(init, apply)


def _plain(modules: Any) -> dict[str, dict[str, Any]]:
    """A module without entries has nothing to say."""
    return {name: dict(entries) for name, entries in modules.items() if entries}
