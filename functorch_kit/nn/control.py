"""Control flow that depends on data: one of several parts, or one part again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from functorch_kit.nn.beside import apart
from functorch_kit.nn.combinators import apply_part, entry, named_parts, non_empty, parallel
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.scope import part_key
from functorch_kit.types import Model, PyTree


def branch(*numbered: Model, choose: Callable[[Any], Any] | None = None, **named: Model) -> Model:
    """Apply one of several parts, chosen by a number or a truth value in the data.

    The others are not computed (``lax.switch``); under ``vmap`` over the choice all are, and one is
    kept.

    Args:
        *numbered: parts that are addressed by their position; or else
        **named: parts that are addressed by name. All give outputs of one shape.
        choose: from the input to the index of a part, or to a truth value: the second part if
            true. Without it the input is a dict of ``x`` and of that index as ``branch``.

    Returns:
        A Model with the parameters and the state of every part; the state of those that were not
        chosen stays as it is. An index that there is no part for gives NaN, and leaves all state.

    Raises:
        LayerError: numbered and named parts mixed, or none at all; a choice that is not one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> double, square = nn.lambda_(lambda x: 2 * x), nn.lambda_(jnp.square)
        >>> model = nn.branch(double, square, choose=lambda x: x.sum() > 4)
        >>> [model.apply({}, (), jnp.array([x]))[0].item() for x in (3.0, 5.0)]
        [6.0, 25.0]
    """
    parts = named_parts(numbered, named, "branch")
    everything = parallel(combine=None, **parts)

    def given_choice(x: Any) -> tuple[Any, Any]:
        if choose is not None:
            return x, choose(x)
        x, given = apart(x, "branch", ("branch",))
        if not given:
            raise LayerError("branch: give choose=, or a dict of x and of an index as branch")
        return x, given["branch"]

    def init(key, x_spec):
        return everything.init(key, x_spec if choose else apart(x_spec, "branch", ("branch",))[0])

    def apply(params, model_state, x, *, key=None, train=False):
        x, chosen = given_choice(x)
        chosen = jnp.asarray(chosen)
        if chosen.shape != () or jnp.issubdtype(chosen.dtype, jnp.inexact):
            raise LayerError(
                f"branch: the choice is {chosen.dtype}{list(chosen.shape)}: give one whole number "
                "or truth value; vmap the model for one each"
            )
        chosen = chosen.astype(jnp.int32)
        states = {name: entry(model_state, name) for name in parts}

        def taken(name: str, part: Model):
            def run(x, states):
                y, state = apply_part(name, part, params, states, x, key, train)
                return y, {**states, name: state}

            return run

        runs = [taken(name, part) for name, part in parts.items()]
        y, after = lax.switch(chosen, runs, x, states)
        known = (chosen >= 0) & (chosen < len(parts))
        y = _or_nan(known, y)
        # lax.switch takes the nearest part there is.
        after = jax.tree.map(lambda new, old: jnp.where(known, new, old), after, states)
        return y, non_empty(after, ())

    return Model(init, apply)


def loop(
    body: Model,
    times: int | None = None,
    *,
    go_on: Callable[[Any], Any] | None = None,
    differentiable: bool = True,
) -> Model:
    """Apply one part to its own output again and again, each time with the same parameters.

    Args:
        body: from x to something of its shape and dtype; it has no state.
        times: how often; with ``go_on``, or with ``times`` (a number in the data) beside x, the
            most that it can be: above it, ``times`` in the data gives NaN.
        go_on: from the output so far to whether there is another time, asked before each.
        differentiable: whether gradients pass backwards; that takes a bound ``times``, and keeps
            the values of all of them. If not, ``times`` may be None: a ``lax.while_loop``.

    Returns:
        A Model on x, or on a dict of ``x`` and of ``times``, one integer.

    Raises:
        LayerError: no end to it; a body that changes the shape or the dtype, or has state.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> double = nn.lambda_(lambda x: 2 * x)
        >>> nn.loop(double, 3).apply({}, (), jnp.float32(1))[0].item()
        8.0
        >>> below = nn.loop(double, go_on=lambda x: x < 100, differentiable=False)
        >>> below.apply({}, (), jnp.float32(1))[0].item()
        128.0
    """
    if times is None and (differentiable or go_on is None):
        raise LayerError("loop: give times, or go_on with differentiable=False")
    if times is not None and times < 0:
        raise LayerError(f"loop: {times} times is not 0 or more")

    def init(key, x_spec):
        x_spec, _ = _with_times(x_spec)
        params, state = body.init(key, x_spec)
        if jax.tree.leaves(state):
            raise LayerError("loop: the body has state, of which there would be one for each time")
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        x, asked = _with_times(x)
        if asked is not None and times is None:
            raise LayerError("loop: times in the data needs a bound: give times=")

        def once(index: Array, x: PyTree) -> PyTree:
            root = part_key(key, "times")
            again = None if root is None else jax.random.fold_in(root, index)
            return _same(body.apply(params, (), x, key=again, train=train)[0], x)

        def is_on(index: Array, x: PyTree) -> Array:
            on = jnp.asarray(True) if go_on is None else jnp.asarray(go_on(x))
            bound = times if asked is None else asked
            return on if bound is None else on & (index < bound)

        if not differentiable:
            end = lax.while_loop(
                lambda at: is_on(*at), lambda at: (at[0] + 1, once(*at)), (jnp.int32(0), x)
            )[1]
        else:

            def step(at, index):
                x, on = at
                if asked is None and go_on is None:
                    return (once(index, x), on), None
                on = on & is_on(index, x)
                return (lax.cond(on, once, lambda _, x: x, index, x), on), None

            indices = jnp.arange(times, dtype=jnp.int32)
            (end, _), _ = lax.scan(step, (x, jnp.asarray(True)), indices)
        if asked is not None and times is not None:
            asked = jnp.asarray(asked)
            end = _or_nan((asked >= 0) & (asked <= times), end)
        return end, ()

    return Model(init, apply)


def _with_times(x: Any) -> tuple[Any, Any]:
    x, given = apart(x, "loop", ("times",)) if isinstance(x, Mapping) and "times" in x else (x, {})
    asked = given.get("times")
    if asked is not None and jnp.shape(asked) != ():
        shape = list(jnp.shape(asked))
        raise LayerError(f"loop: times is {shape}: give one number, or vmap the model")
    return x, asked


def _same(y: PyTree, x: PyTree) -> PyTree:
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (x, y)]
    if shapes[0] != shapes[1]:
        raise LayerError(f"loop: the body makes {shapes[1]} of {shapes[0]}: keep shape and dtype")
    return y


def _or_nan(is_known: Array, y: PyTree) -> PyTree:
    """Wrong is not silently near: floats are NaN where there is no answer."""

    def poisoned(leaf):
        is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.where(is_known, leaf, jnp.nan) if is_float else leaf

    return jax.tree.map(poisoned, y)
