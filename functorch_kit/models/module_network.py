"""The neural module network: Andreas, Rohrbach, Darrell and Klein, 2016.

Every question has a layout of its own, made of the same few modules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import nn
from functorch_kit.models.dynamic import dynamic
from functorch_kit.models.schedule import Node, schedule
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

Layout = Any
"""``(module, word, *layouts)``: ``("describe", 2, ("both", 0, ("find", 3), ("find", 5)))``."""

# Name -> how many layouts it takes; the order is that of the operations' numbers.
_ANSWERS = ("describe", "exists")
_MODULES = {"find": 0, "relocate": 1, "both": 2, "either": 2, "describe": 1, "exists": 1}


@dataclasses.dataclass(frozen=True)
class ModuleNetworkConfig:
    """A neural module network.

    Attributes:
        words: number of words that modules take.
        width: size of a word's vector, and of what it is compared with.
        outputs: number of answers.

    Example:
        >>> ModuleNetworkConfig().width
        64
    """

    words: int = 32
    width: int = 64
    outputs: int = 10


def module_network(config: ModuleNetworkConfig) -> Model:
    """Modules that pass attention over places from one to another, down to an answer.

    ``find`` attends to a word, ``relocate`` moves attention, ``both`` and ``either`` join two,
    ``describe`` and ``exists`` answer. Parameters are addressed like ``find/place/kernel``.

    Args:
        config: see ``ModuleNetworkConfig``.

    Returns:
        A Model from what ``layouts`` makes, with a ``context`` of ``places`` (examples, places,
        features), to logits (examples, outputs).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.module_network(models.ModuleNetworkConfig(width=4))
        >>> asked = [("exists", 0, ("find", 3)), ("describe", 1, ("relocate", 2, ("find", 5)))]
        >>> x = {**models.layouts(asked), "context": {"places": jnp.ones((2, 9, 8))}}
        >>> params, state = model.init(jax.random.key(0), x)
        >>> model.apply(params, state, x)[0].shape
        (2, 10)
    """
    find, relocate, describe, exists = (
        make(config) for make in (_find, _relocate, _describe, _exists)
    )
    none = config.outputs
    return nn.serial(
        modules=dynamic(
            find=find,
            relocate=relocate,
            both=_joined(lambda a, b: a * b, none),
            either=_joined(lambda a, b: a + b - a * b, none),
            describe=describe,
            exists=exists,
        ),
        answer=nn.lambda_(lambda value: value["answer"]),
    )


def layouts(asked: Sequence[Layout], *, width: int = 32) -> dict[str, np.ndarray]:
    """Layouts as arrays, their modules in the order in which they can be computed together.

    Args:
        asked: one for each example; the outermost module answers.
        width: modules that are computed together, at most.

    Raises:
        LayerError: a module that there is none of, with too many or too few layouts, or an
            outermost one that does not answer.

    Example:
        >>> from functorch_kit import models
        >>> models.layouts([("exists", 0, ("find", 3))], width=2)["op"].tolist()
        [0, 5]
    """
    return schedule([_nodes(layout) for layout in asked], width=width, most_inputs=2)


def _nodes(layout: Layout) -> list[Node]:
    nodes: list[Node] = []

    def add(layout: Layout, is_outermost: bool) -> int:
        name, word, *below = layout
        if _MODULES.get(name) != len(below):
            known = ", ".join(f"{name} of {count}" for name, count in _MODULES.items())
            raise LayerError(f"layouts: there is no {name!r} of {len(below)}: there are {known}")
        if (name in _ANSWERS) != is_outermost:
            raise LayerError(
                f"layouts: {name!r} stands {'outermost' if is_outermost else 'inside'}: "
                f"{' or '.join(_ANSWERS)} answer, outermost, and nothing else does"
            )
        inputs = tuple(add(each, False) for each in below)
        nodes.append(Node(list(_MODULES).index(name), inputs, word))
        return len(nodes) - 1

    add(layout, True)
    return nodes


def _find(config: ModuleNetworkConfig) -> Model:
    def forward(part, x):
        places = part("place", x["context"]["places"])
        return _attention(places, part("word", x["argument"]).astype(places.dtype))

    return _module(config, forward, place=nn.dense(config.width))


def _relocate(config: ModuleNetworkConfig) -> Model:
    def forward(part, x):
        places = x["context"]["places"]
        seen = part("seen", _looked_at(x))
        asked = part("word", x["argument"]).astype(seen.dtype) * seen
        return _attention(part("place", places), asked)

    parts = {"place": nn.dense(config.width), "seen": nn.dense(config.width)}
    return _module(config, forward, answers=False, **parts)


def _describe(config: ModuleNetworkConfig) -> Model:
    def forward(part, x):
        seen = part("seen", _looked_at(x))
        asked = part("word", x["argument"]).astype(seen.dtype) * seen
        return part("answer", jnp.tanh(asked))

    parts = {"seen": nn.dense(config.width), "answer": nn.dense(config.outputs)}
    return _module(config, forward, answers=True, **parts)


def _exists(config: ModuleNetworkConfig) -> Model:
    def forward(part, x):
        attention = x["inputs"]["attention"][:, 0]
        most = jnp.stack([attention.max(-1), attention.mean(-1)], -1)
        return part("answer", most)

    answer = nn.dense(config.outputs)
    return nn.graph(_answering(forward), answer=answer)


def _joined(join: Callable[[jax.Array, jax.Array], jax.Array], outputs: int) -> Model:
    def forward(x):
        attention = x["inputs"]["attention"]
        return _value(join(attention[:, 0], attention[:, 1]), outputs)

    return nn.lambda_(forward)


def _module(config: ModuleNetworkConfig, forward, *, answers: bool = False, **parts) -> Model:
    """A module with a word; what it makes is one half of a value, and the other is zeros."""

    def whole(part, x):
        made = forward(part, x)
        return _answer(made, x) if answers else _value(made, config.outputs)

    return nn.graph(whole, word=nn.embedding(config.words, config.width), **parts)


def _answering(forward):
    return lambda part, x: _answer(forward(part, x), x)


def _value(attention: jax.Array, outputs: int) -> dict[str, jax.Array]:
    return {
        "attention": attention,
        "answer": jnp.zeros((attention.shape[0], outputs), attention.dtype),
    }


def _answer(logits: jax.Array, x: Any) -> dict[str, jax.Array]:
    return {"attention": jnp.zeros_like(x["inputs"]["attention"][:, 0]), "answer": logits}


def _attention(places: jax.Array, asked: jax.Array) -> jax.Array:
    """How far each place agrees with what is asked for, from 0 to 1."""
    return jax.nn.sigmoid(jnp.einsum("npw,nw->np", places, asked) * places.shape[-1] ** -0.5)


def _looked_at(x: Any) -> jax.Array:
    """The mean of the places, by attention."""
    attention = x["inputs"]["attention"][:, 0]
    share = attention / (attention.sum(-1, keepdims=True) + 1e-6)
    places = x["context"]["places"]
    return jnp.einsum("np,npf->nf", share.astype(places.dtype), places)
