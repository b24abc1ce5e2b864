"""Flax Linen: its modules as a Model, and a Model as a module of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.interop.errors import InteropError, library
from functorch_kit.interop.modes import Flags, flags_of
from functorch_kit.nn.scope import part_key
from functorch_kit.types import Model, spec_of


def from_linen(
    module: Any,
    *,
    flags: Flags | None = None,
    call: Callable[..., Any] | None = None,
    rngs: Sequence[str] = ("dropout",),
) -> Model:
    """A Linen module as a Model.

    Its parameters are those of the collection ``params``; all other collections that ``init`` makes
    (``batch_stats``, ``cache`` …) are the model_state, and every call may change them. Collections
    that only calls make, such as ``intermediates``, are left out.

    Args:
        module: the module, unbound.
        flags: ``flags(train)`` returns the keyword arguments that tell it whether it trains; by the
            names that its ``__call__`` (or ``call``) takes if None, see ``flags_of``.
        call: ``call(module, x, **flags)``, for what is not ``module(x, **flags)``: another method,
            or a batch of several arrays that are arguments each.
        rngs: names of the streams of random numbers that a call draws from; each gets a key of its
            own from the Model's key.

    Returns:
        A Model whose params and model_state are nested dicts, as Linen has them.

    Example:
        >>> import flax.linen, jax, jax.numpy as jnp
        >>> model = from_linen(flax.linen.Dense(3))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["kernel"].shape, model.apply(params, state, jnp.ones((2, 4)))[0].shape
        ((4, 3), (2, 3))
    """
    meta = library("flax.core.meta", "flax")
    told = flags or flags_of(call or type(module).__call__)

    def init(key, x_spec):
        keys = {name: part_key(key, name) for name in ("params", *rngs)}
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x_spec)
        variables = module.init(keys, x, method=call, **told(False))
        made = _plain(meta.unbox(variables))
        params = made.pop("params", {})
        return params, made or ()

    def apply(params, model_state, x, *, key=None, train=False):
        state = dict(model_state) if model_state else {}
        keys = {} if key is None else {name: part_key(key, name) for name in rngs}
        y, after = module.apply(
            {"params": params, **state},
            x,
            rngs=keys,
            mutable=list(state),
            method=call,
            **told(train),
        )
        return y, {**state, **_plain(after)} or ()

    return Model(init, apply)


def to_linen(model: Model, *, name: str | None = None) -> Any:
    """A Model as a Linen module, to be used inside others.

    Args:
        model: its params and model_state have to be dicts, as those of every layer here are.
        name: of the module; Linen finds one if None.

    Returns:
        A module called as ``module(x, train=False)``. Its variables are the Model's own: those of
        ``params`` and, where there are any, of the collection ``model_state``, which training needs
        as ``mutable``. Random numbers come from the stream ``dropout``.

    Raises:
        InteropError: when it is called, of params that are no dict.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> module = to_linen(nn.serial(head=nn.dense(3)))
        >>> variables = module.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> variables["params"]["head"]["kernel"].shape
        (4, 3)
    """
    return _module_class()(model=model, name=name)


@functools.cache
def _module_class() -> Any:
    linen: Any = library("flax.linen", "flax")

    class FunctionalModel(linen.Module):
        model: Any

        @linen.compact
        def __call__(self, x, *, train=False):
            if self.is_initializing():
                params, state = self.model.init(self.make_rng("params"), spec_of(x))
                for name, value in _entries(params, "params"):
                    self.put_variable("params", name, value)
                for name, value in _entries(state, "model_state"):
                    self.put_variable("model_state", name, value)
            held = self.variables
            state = dict(held.get("model_state", {})) or ()
            key = self.make_rng("dropout") if train and self.has_rng("dropout") else None
            y, after = self.model.apply(
                dict(held.get("params", {})), state, x, key=key, train=train
            )
            if not self.is_initializing() and self.is_mutable_collection("model_state"):
                for name, value in _entries(after, "model_state"):
                    self.put_variable("model_state", name, value)
            return y

    return FunctionalModel


def _entries(tree: Any, what: str) -> list[tuple[str, Any]]:
    if not jax.tree.leaves(tree):
        return []
    if not isinstance(tree, Mapping):
        kind = type(tree).__name__
        raise InteropError(f"to_linen: the model's {what} is a {kind}: give a model with a dict")
    return list(tree.items())


def _plain(tree: Any) -> Any:
    """Linen's frozen dicts as plain ones."""
    if isinstance(tree, Mapping):
        return {name: _plain(value) for name, value in tree.items()}
    return tree
