"""Parts wired by a function of one's own: for what is neither a row nor side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.nn.combinators import apply_part, entry, non_empty, output_spec
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.scope import part_key, scope
from functorch_kit.types import Model, Params, PyTree, spec_of


class Wires:
    """What the function of a ``graph`` is given: ``part(name, x)`` applies a part to x.

    Attributes:
        train: whether this is training; true at initialisation, so that every part is met.

    Example:
        >>> from functorch_kit import nn
        >>> forward = lambda part, x: part("double", part("double", x))
        >>> model = nn.graph(forward, double=nn.lambda_(lambda x: 2 * x))
        >>> model.apply({}, (), 1.0)[0]
        4.0
    """

    def __init__(
        self, run: Callable[[str, PyTree], PyTree], params: Callable[[str], Params], train: bool
    ):
        self._run, self._params, self.train = run, params, train

    def __call__(self, name: str, x: PyTree) -> PyTree:
        """What the part of that name makes of x."""
        return self._run(name, x)

    def params(self, name: str) -> Params:
        """The parameters of a part, to be used in another way as well."""
        return self._params(name)


def graph(forward: Callable[[Wires, Any], Any], **parts: Model) -> Model:
    """A model whose parts are wired by a plain function.

    Args:
        forward: ``forward(part, x) -> y``, in which ``part(name, x)`` applies a part. A name that
            is used twice has the same parameters both times, and the state that the first left.
        **parts: addressed by name.

    Returns:
        A Model whose params and model_state are dicts with an entry for each part that has any. At
        initialisation the function is run on shapes alone.

    Raises:
        LayerError: a name that there is no part of, or a part that was never applied.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> def forward(part, x):
        ...     return part("gate", x) * part("value", x)
        >>> model = nn.graph(forward, gate=nn.dense(4), value=nn.dense(4))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(params), model.apply(params, state, jnp.ones((2, 3)))[0].shape
        (['gate', 'value'], (2, 4))
    """
    # What each part is given, by the input of the whole: it depends on shapes alone, and a block
    # that stands in many places asks for it many times.
    plans: dict[Any, dict[str, Any]] = {}

    def plan(key, x_spec) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        shapes: dict[str, Any] = {}

        def run(name: str, x: PyTree) -> PyTree:
            part, spec = _part(parts, name), spec_of(x)
            with scope(name):
                if name not in inputs:
                    inputs[name] = spec
                    shapes[name] = jax.eval_shape(part.init, part_key(key, name), spec)
                params, state = shapes[name]
                y = output_spec(part, params, state, spec)
            return _zeros(y)

        wires = Wires(run, lambda name: _zeros(shapes[name][0]), train=True)
        jax.eval_shape(lambda x: forward(wires, x), x_spec)
        if missing := parts.keys() - inputs.keys():
            raise LayerError(f"graph: never applied: {', '.join(sorted(missing))}")
        return inputs

    def init(key, x_spec):
        leaves, structure = jax.tree.flatten(spec_of(x_spec))
        of = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if of not in plans:
            plans[of] = plan(key, x_spec)
        params, states = {}, {}
        for name, part in parts.items():
            with scope(name):
                params[name], states[name] = part.init(part_key(key, name), plans[of][name])
        return non_empty(params, {}), non_empty(states, ())

    def apply(params, model_state, x, *, key=None, train=False):
        states = {name: entry(model_state, name) for name in parts}

        def run(name: str, x: PyTree) -> PyTree:
            part = _part(parts, name)
            y, states[name] = apply_part(name, part, params, states, x, key, train)
            return y

        y = forward(Wires(run, lambda name: entry(params, name), train), x)
        return y, non_empty(states, ())

    return Model(init, apply)


def _part(parts: Mapping[str, Model], name: str) -> Model:
    if name not in parts:
        raise LayerError(f"graph: there is no part {name!r}: there are {', '.join(parts)}")
    return parts[name]


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
