"""Flax NNX: its modules as a Model, and a Model as a module of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from functorch_kit.interop.errors import library
from functorch_kit.interop.modes import Flags, flags_of
from functorch_kit.interop.nested import leaf_at, nested
from functorch_kit.nn.scope import part_key
from functorch_kit.types import Model, Spec


def from_nnx(
    make: Callable[[Any], Any],
    *,
    flags: Flags | None = None,
    call: Callable[..., Any] | None = None,
) -> Model:
    """An NNX module as a Model.

    Its parameters are its ``nnx.Param``; every other variable (``nnx.BatchStat``, ``nnx.Cache`` …)
    is model_state, and each call may change it. What its streams of random numbers hold is made
    anew from the Model's key at every call, so that a step's randomness depends on the step alone.
    Whether it trains is told by its own ``train()`` and ``eval()``.

    Args:
        make: ``make(rngs)`` returns the module, ``rngs`` being an ``nnx.Rngs``. It has to make the
            same module each time, up to its numbers.
        flags: ``flags(train)`` returns further keyword arguments that tell it whether it trains; by
            the names that its ``__call__`` (or ``call``) takes if None, see ``flags_of``.
        call: ``call(module, x, **flags)``, for what is not ``module(x, **flags)``.

    Returns:
        A Model whose params and model_state are nested dicts, addressed by attribute.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["kernel"].shape, model.apply(params, state, jnp.ones((2, 4)))[0].shape
        ((4, 3), (2, 3))
    """
    nnx: Any = library("flax.nnx", "flax")

    def init(key, x_spec):
        module = make(nnx.Rngs(key))
        parts = _parts(nnx, module)
        values = {path: variable[...] for path, variable in parts.variables}
        params = {_names(path): values[path] for path in parts.params}
        state = {_names(path): values[path] for path in parts.state}
        return nested(params), nested(state) or ()

    def apply(params, model_state, x, *, key=None, train=False):
        # Its structure, made anew in each trace: variables belong to the trace that made them.
        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        module.train() if train else module.eval()
        parts = _parts(nnx, module)
        filled = []
        for path, variable in parts.variables:
            if path in parts.params:
                value = leaf_at(params, _names(path))
            elif path in parts.state:
                value = leaf_at(model_state, _names(path))
            else:
                value = _drawn(variable, key, _names(path))
            filled.append((path, variable.replace(value)))
        module = nnx.merge(parts.graph, nnx.from_flat_state(filled))
        run = call or type(module).__call__
        told = (flags or flags_of(run))(train)
        y = run(module, x, **told)
        after = dict(_parts(nnx, module).variables)
        return y, nested({_names(path): after[path][...] for path in parts.state}) or ()

    return Model(init, apply)


class _Parts(NamedTuple):
    """A module taken apart: its structure, and the paths of its variables by what they are."""

    graph: Any
    variables: list[tuple[tuple[Any, ...], Any]]
    params: set[tuple[Any, ...]]
    state: set[tuple[Any, ...]]


def _parts(nnx: Any, module: Any) -> _Parts:
    graph, state = nnx.split(module)
    variables = list(nnx.to_flat_state(state))
    params = {path for path, each in variables if issubclass(each.type, nnx.Param)}
    random = {path for path, each in variables if issubclass(each.type, nnx.RngState)}
    return _Parts(graph, variables, params, {path for path, _ in variables} - params - random)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(map(str, path))


def _drawn(variable: Any, key: Any, names: tuple[str, ...]) -> Any:
    """What a stream of random numbers begins a call with: a key of its own, or a count of 0."""
    spec = variable.get_raw_value()
    if not jnp.issubdtype(spec.dtype, jax.dtypes.prng_key):
        return jnp.zeros(spec.shape, spec.dtype)
    # Without a key it is evaluation, where nothing is drawn; NNX wants one to be there.
    own: Any = jax.random.key(0) if key is None else part_key(key, "/".join(names))
    return jnp.broadcast_to(own, spec.shape)


def to_nnx(model: Model, x_spec: Spec, *, rngs: Any) -> Any:
    """A Model as an NNX module, to be used inside others.

    Args:
        model: its params and model_state have to be dicts, as those of every layer here are.
        x_spec: shape and dtype of a batch of its inputs.
        rngs: an ``nnx.Rngs``; parameters come from its stream ``params``, and a call that trains
            draws from ``dropout`` where there is such a stream.

    Returns:
        A module called as ``module(x)``, with ``nnx.Param`` in ``module.params`` and, where there
        is any, ``nnx.BatchStat`` in ``module.model_state``. It trains until ``module.eval()``.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from functorch_kit import nn
        >>> module = to_nnx(nn.dense(3), jnp.ones((2, 4)), rngs=nnx.Rngs(0))
        >>> module(jnp.ones((2, 4))).shape, type(module.params["kernel"]).__name__
        ((2, 3), 'Param')
    """
    return _module_class()(model, x_spec, rngs)


@functools.cache
def _module_class() -> Any:
    nnx: Any = library("flax.nnx", "flax")

    def wrapped(kind: Any, tree: Any) -> Any:
        return nnx.data(jax.tree.map(kind, tree))

    def values(tree: Any) -> Any:
        is_leaf = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
        return jax.tree.map(lambda leaf: leaf[...], tree, is_leaf=is_leaf)

    class FunctionalModel(nnx.Module):
        def __init__(self, model, x_spec, rngs):
            params, state = model.init(rngs.params(), x_spec)
            self.model = nnx.static(model)
            self.params = wrapped(nnx.Param, params)
            self.model_state = wrapped(nnx.BatchStat, state)
            self.rngs = rngs
            self.deterministic = False  # as nnx.Dropout has it: train() and eval() set it

        def __call__(self, x):
            train = not self.deterministic
            key = self.rngs.dropout() if train and "dropout" in self.rngs else None
            before = values(self.model_state)
            y, after = self.model.apply(values(self.params), before, x, key=key, train=train)
            if jax.tree.leaves(after):
                is_leaf = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
                held = jax.tree.leaves(self.model_state, is_leaf=is_leaf)
                for variable, value in zip(held, jax.tree.leaves(after), strict=True):
                    variable[...] = value
            return y

    return FunctionalModel
