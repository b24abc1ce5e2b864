"""Equinox: its modules as a Model, and a Model as a module of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from functorch_kit.interop.errors import library
from functorch_kit.interop.modes import Flags, flags_of, parameters_of
from functorch_kit.interop.nested import leaf_at, nested
from functorch_kit.types import Key, Model, Spec, path_name


def from_equinox(
    make: Callable[[Key], Any],
    *,
    flags: Flags | None = None,
    call: Callable[..., Any] | None = None,
    batch_axis: str | None = "batch",
) -> Model:
    """An Equinox module as a Model.

    Its parameters are its floating-point arrays, addressed by attribute, like
    ``layers/0/weight``. Arrays of integers and what ``eqx.nn.State`` holds are the model_state.
    Whether it trains is told by ``eqx.nn.inference_mode``.

    Args:
        make: ``make(key)`` returns the module; or the module and its state, as
            ``eqx.nn.make_with_state(Module)`` does. It has to make the same module each time, up to
            its numbers.
        flags: ``flags(train)`` returns further keyword arguments that tell it whether it trains; by
            the names that its ``__call__`` (or ``call``) takes if None, see ``flags_of``.
        call: ``call(module, x, **rest)``, for what is not ``module(x, **rest)``; ``state`` and
            ``key`` are among the rest if it takes arguments of those names.
        batch_axis: Equinox's modules take one example: they are mapped over the batch, and this is
            the axis's name, for ``eqx.nn.BatchNorm``; each example has a key of its own. None for a
            module that takes batches.

    Returns:
        A Model.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> model = from_equinox(lambda key: eqx.nn.MLP(4, 3, 8, 1, key=key))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params["layers"]["0"]["weight"].shape
        (8, 4)
        >>> model.apply(params, state, jnp.ones((2, 4)))[0].shape
        (2, 3)
    """
    eqx: Any = library("equinox", "equinox")

    @functools.cache
    def structure() -> _Structure:
        return _structure(eqx, eqx.filter_eval_shape(make, jax.random.key(0)))

    def init(key, x_spec):
        made = structure()
        leaves = jax.tree.leaves(make(key))
        params = {made.params[at]: leaves[at] for at in made.params}
        state = {made.state[at]: leaves[at] for at in made.state}
        return nested(params), nested(state) or ()

    def apply(params, model_state, x, *, key=None, train=False):
        made = structure()
        leaves = list(made.leaves)
        for at, path in made.params.items():
            leaves[at] = leaf_at(params, path)
        for at, path in made.state.items():
            leaves[at] = leaf_at(model_state, path)
        whole = jax.tree.unflatten(made.tree, leaves)
        module, state = whole if made.is_stateful else (whole, None)
        module = eqx.nn.inference_mode(module, value=not train)
        run = call or type(module).__call__
        taken = parameters_of(run)
        told = dict((flags or flags_of(run))(train))

        def one(x, state, key):
            rest = {"key": key} if "key" in taken else {}
            if made.is_stateful:
                return run(module, x, state=state, **rest, **told)
            return run(module, x, **rest, **told), None

        if batch_axis is None:
            y, state = one(x, state, key)
        else:
            count = jax.tree.leaves(x)[0].shape[0]
            keys = None if key is None else jax.random.split(key, count)
            over = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name=batch_axis)
            y, state = over(x, state, keys)
        if made.is_stateful:
            tail = jax.tree.leaves(state)  # it stands behind the module, leaf by leaf
            leaves[len(leaves) - len(tail) :] = tail
        return y, nested({path: leaves[at] for at, path in made.state.items()}) or ()

    return Model(init, apply)


class _Structure(NamedTuple):
    """A module without its numbers: which leaf is a parameter, which a state, and their paths."""

    tree: Any
    leaves: list[Any]
    params: dict[int, tuple[str, ...]]
    state: dict[int, tuple[str, ...]]
    is_stateful: bool


def _structure(eqx: Any, made: Any) -> _Structure:
    is_stateful = type(made) is tuple and len(made) == 2 and isinstance(made[1], eqx.nn.State)
    found, tree = jax.tree_util.tree_flatten_with_path(made)
    params, state = {}, {}
    for at, (path, leaf) in enumerate(found):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        names = tuple(path_name(path).split("/"))
        in_module = not is_stateful or names[0] == "0"
        names = names[1:] if is_stateful else names
        if not in_module:
            state["state", *names] = at
        elif jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact):
            params[names] = at
        else:
            state["constants", *names] = at
    by_place = lambda paths: {at: path for path, at in paths.items()}  # noqa: E731
    leaves = [leaf for _, leaf in found]
    return _Structure(tree, leaves, by_place(params), by_place(state), is_stateful)


def to_equinox(model: Model, x_spec: Spec, *, key: Key) -> Any:
    """A Model as an Equinox module, to be used inside others.

    Args:
        model: the Model.
        x_spec: shape and dtype of a batch of its inputs.
        key: of the parameters.

    Returns:
        A module called as ``module(x, state, *, key=None) -> (y, state)`` on **batches**, with the
        parameters in ``module.params`` and ``module.inference`` as ``eqx.nn.inference_mode`` sets
        it. Where the Model has no model_state, the state passes through. Make it, or the module
        that it is part of, with ``eqx.nn.make_with_state``.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> make = eqx.nn.make_with_state(to_equinox)
        >>> module, state = make(nn.dense(3), jnp.ones((2, 4)), key=jax.random.key(0))
        >>> y, state = module(jnp.ones((2, 4)), state)
        >>> y.shape
        (2, 3)
    """
    return _module_class()(model, x_spec, key)


@functools.cache
def _module_class() -> Any:
    eqx: Any = library("equinox", "equinox")

    class FunctionalModel(eqx.Module):
        params: Any
        index: Any
        inference: bool
        model: Any = eqx.field(static=True)

        def __init__(self, model, x_spec, key):
            self.params, state = model.init(key, x_spec)
            self.index = eqx.nn.StateIndex(state) if jax.tree.leaves(state) else None
            self.inference = False
            self.model = model

        def __call__(self, x, state, *, key=None):
            before = () if self.index is None else state.get(self.index)
            train = not self.inference
            y, after = self.model.apply(self.params, before, x, key=key, train=train)
            # A state that is set is another one from then on: not where nothing has changed.
            held = {id(leaf) for leaf in jax.tree.leaves(before)}
            kept = all(id(leaf) in held for leaf in jax.tree.leaves(after))
            return y, state if kept else state.set(self.index, after)

    return FunctionalModel
