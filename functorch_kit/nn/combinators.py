"""Models made of models: in sequence, side by side, around a shortcut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import jax

from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.scope import part_key, scope, tag
from functorch_kit.nn.treatment import treat
from functorch_kit.types import Key, Model, ModelState, Params, PyTree, Spec


def serial(*numbered: Model, **named: Model) -> Model:
    """Apply one part after another, each to the output of the one before.

    Args:
        *numbered: parts that are addressed by their position, ``0/kernel``; or else
        **named: parts that are addressed by name, ``conv/kernel``. Names are the better habit:
            a part's parameters and randomness then do not depend on what stands before it.

    Returns:
        A Model whose params and model_state are dicts with an entry for each part that has any.

    Raises:
        LayerError: numbered and named parts mixed, or none at all.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.serial(hidden=nn.dense(8), act=nn.relu, head=nn.dense(3))
        >>> params, state = model.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5), jnp.float32))
        >>> jax.tree.map(jnp.shape, params)["hidden"]["kernel"]
        (5, 8)
        >>> y, state = model.apply(params, state, jnp.ones((2, 5)))
        >>> y.shape
        (2, 3)
    """
    parts = named_parts(numbered, named, "serial")

    def with_output(key: Key, x_spec: Spec) -> tuple[Params, ModelState, Spec]:
        params, states = {}, {}
        for name, part in parts.items():
            with scope(name):
                params[name], states[name], x_spec = _init(part, part_key(key, name), x_spec)
        return non_empty(params, {}), non_empty(states, ()), x_spec

    def init(key: Key, x_spec: Spec) -> tuple[Params, ModelState]:
        params, states, _ = with_output(key, x_spec)
        return params, states

    def apply(params, model_state, x, *, key=None, train=False):
        states = {}
        for name, part in parts.items():
            x, states[name] = apply_part(name, part, params, model_state, x, key, train)
        return x, non_empty(states, ())

    _WITH_OUTPUT[init] = apply, with_output
    return Model(init, apply)


# By their `init`, the `apply` of combinators and an `init` that also gives the shape of the output,
# from those of the parts. Asked for it with `output_spec`, a layer would be traced anew for every
# combinator around it.
_WITH_OUTPUT: WeakKeyDictionary[Callable[..., Any], tuple[Any, Any]] = WeakKeyDictionary()


def _init(part: Model, key: Key | None, x_spec: Spec) -> tuple[Params, ModelState, Spec]:
    """A part's params and state, and the shape of its output."""
    apply, with_output = _WITH_OUTPUT.get(part.init, (None, None))
    if with_output is not None and apply is part.apply:  # else someone made another model of it
        return with_output(key, x_spec)
    params, state = part.init(key, x_spec)
    return params, state, output_spec(part, params, state, x_spec)


def parallel(*numbered: Model, combine: Callable[..., Any] | None = None, **named: Model) -> Model:
    """Apply every part to the same input.

    Args:
        *numbered: parts that are addressed by their position; or else
        **named: parts that are addressed by name.
        combine: a function of the parts' outputs, in order, such as ``jnp.add`` for two parts or
            ``lambda *ys: jnp.concatenate(ys, -1)``. Without it the output is a dict name -> output.

    Raises:
        LayerError: numbered and named parts mixed, or none at all.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.parallel(value=nn.dense(1), policy=nn.dense(4))
        >>> params, state = model.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 5), jnp.float32))
        >>> y, _ = model.apply(params, state, jnp.ones((2, 5)))
        >>> {name: leaf.shape for name, leaf in y.items()}
        {'value': (2, 1), 'policy': (2, 4)}
    """
    parts = named_parts(numbered, named, "parallel")

    def init(key: Key, x_spec: Spec) -> tuple[Params, ModelState]:
        params, states = {}, {}
        for name, part in parts.items():
            with scope(name):
                params[name], states[name] = part.init(part_key(key, name), x_spec)
        return non_empty(params, {}), non_empty(states, ())

    def with_output(key: Key, x_spec: Spec) -> tuple[Params, ModelState, Spec]:
        params, states, ys = {}, {}, {}
        for name, part in parts.items():
            with scope(name):
                params[name], states[name], ys[name] = _init(part, part_key(key, name), x_spec)
        y_spec = jax.eval_shape(combine, *ys.values()) if combine else ys
        return non_empty(params, {}), non_empty(states, ()), y_spec

    def apply(params, model_state, x, *, key=None, train=False):
        ys, states = {}, {}
        for name, part in parts.items():
            ys[name], states[name] = apply_part(name, part, params, model_state, x, key, train)
        return (combine(*ys.values()) if combine else ys), non_empty(states, ())

    _WITH_OUTPUT[init] = apply, with_output
    return Model(init, apply)


def residual(body: Model, shortcut: Model | None = None) -> Model:
    """``body(x) + shortcut(x)``; without a shortcut, ``body(x) + x``.

    Args:
        body: its parameters stand under ``body/``.
        shortcut: a projection where the shapes differ; its parameters stand under ``shortcut/``.

    Raises:
        LayerError: the two outputs differ in shape: they are added, never broadcast.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.residual(nn.lambda_(lambda x: 3 * x))
        >>> model.apply({}, (), jnp.ones(2))[0].tolist()
        [4.0, 4.0]
    """
    return parallel(body=body, shortcut=shortcut or lambda_(lambda x: x), combine=_add)


def lambda_(function: Callable[[Any], Any]) -> Model:
    """A plain function of ``x`` as a Model without parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.lambda_(jnp.square).apply({}, (), jnp.arange(3.0))[0].tolist()
        [0.0, 1.0, 4.0]
    """

    def apply(params, model_state, x, *, key=None, train=False):
        return function(x), model_state

    return Model(lambda key, x_spec: ({}, ()), apply)


def apply_part(
    name: str,
    part: Model,
    params: Params,
    model_state: ModelState,
    x: PyTree,
    key: Key | None,
    train: bool,
) -> tuple[Any, ModelState]:
    """Apply the part called ``name`` with its share of params, state and key; for own combinators.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> apply_part("double", nn.lambda_(lambda x: 2 * x), {}, (), jnp.ones(1), None, False)
        (Array([2.], dtype=float32), ())
    """
    with scope(name):
        apply, train = treat(part.apply, train)
        y, part_state = apply(
            entry(params, name),
            entry(model_state, name),
            x,
            key=part_key(key, name),
            train=train,
        )
        return tag(y), part_state


def output_spec(model: Model, params: Params, model_state: ModelState, x_spec: Spec) -> Spec:
    """Shape and dtype of a model's output, without computing it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x_spec = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
        >>> output_spec(nn.flatten(), {}, (), x_spec).shape
        (4, 64)
    """
    return jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, x_spec)


def named_parts(
    numbered: tuple[Model, ...], named: Mapping[str, Model], caller: str
) -> Mapping[str, Model]:
    """Parts by name, from either form in which a combinator takes them.

    Example:
        >>> from functorch_kit import nn
        >>> list(named_parts((nn.relu, nn.relu), {}, "serial"))
        ['0', '1']
    """
    if bool(numbered) == bool(named):
        raise LayerError(f"{caller} takes its parts either all by position or all by name")
    parts = named or {str(index): part for index, part in enumerate(numbered)}
    for name in parts:
        if "/" in name:
            raise LayerError(f"{caller}: the name {name!r} holds a slash, which separates names")
    return parts


def entry(tree: PyTree, name: str) -> PyTree:
    """A part's share of params or state; ``()`` where it has none.

    Example:
        >>> entry({"a": 1}, "a"), entry((), "a")
        (1, ())
    """
    return tree[name] if isinstance(tree, Mapping) and name in tree else ()


def non_empty(trees: dict[str, PyTree], nothing: PyTree) -> PyTree:
    """The entries that hold any array; ``nothing`` if none does.

    Example:
        >>> non_empty({"a": 1, "b": ()}, {}), non_empty({"b": ()}, ())
        ({'a': 1}, ())
    """
    kept = {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
    return kept or nothing


def _add(body: PyTree, shortcut: PyTree) -> PyTree:
    def add(left, right):
        if left.shape != right.shape:
            raise LayerError(
                f"residual: body gives {left.shape} and shortcut {right.shape}: "
                "give a shortcut that projects the input to the body's shape"
            )
        return left + right.astype(left.dtype)

    return jax.tree.map(add, body, shortcut)
