"""The binary Tree-LSTM: Tai, Socher and Manning, 2015, batched by depth or one tree at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import nn
from functorch_kit.models.dynamic import dynamic
from functorch_kit.models.schedule import Node, schedule
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

Tree = Any
"""A token, or a pair of trees: ``((3, 1), 4)``."""
_LEAF, _PAIR = 0, 1


@dataclasses.dataclass(frozen=True)
class TreeLSTMConfig:
    """A binary Tree-LSTM; the defaults are the paper's, for sentiment.

    Attributes:
        vocabulary: number of tokens.
        embedding: size of a token's vector.
        width: of the hidden vector and of the cell.
        outputs: size of the output.

    Example:
        >>> TreeLSTMConfig().width
        150
    """

    vocabulary: int = 10_000
    embedding: int = 300
    width: int = 150
    outputs: int = 5


def tree_lstm(config: TreeLSTMConfig) -> Model:
    """Leaves from tokens, then pairs from what is below them, then a head on each tree's root.

    Parameters are addressed like ``tree/pair/left/kernel``.

    Args:
        config: see ``TreeLSTMConfig``.

    Returns:
        A Model from what ``forest`` makes of trees to (trees, outputs). A token outside the
        vocabulary gives NaN.

    Example:
        >>> import jax
        >>> from functorch_kit import models
        >>> model = models.tree_lstm(models.TreeLSTMConfig(vocabulary=9, embedding=4, width=4))
        >>> x = models.forest([((3, 1), 4), (1, 5)])
        >>> params, state = model.init(jax.random.key(0), x)
        >>> model.apply(params, state, x)[0].shape
        (2, 5)
    """
    return nn.serial(
        tree=dynamic(leaf=_leaf(config), pair=_pair(config.width)),
        hidden=nn.lambda_(lambda root: root["hidden"]),
        head=nn.dense(config.outputs),
    )


def tree_lstm_one_by_one(config: TreeLSTMConfig) -> Model:
    """The same network over the same params, in plain recursion: a node at a time, tree by tree.

    What a define-by-run framework does. Compiled, there would be a program for every tree.

    Args:
        config: see ``TreeLSTMConfig``.

    Returns:
        A Model from a sequence of trees to (trees, outputs).

    Example:
        >>> import jax
        >>> from functorch_kit import models
        >>> config = models.TreeLSTMConfig(vocabulary=9, embedding=4, width=4)
        >>> trees = [((3, 1), 4), (1, 5)]
        >>> x = models.forest(trees)
        >>> params, state = models.tree_lstm(config).init(jax.random.key(0), x)
        >>> models.tree_lstm_one_by_one(config).apply(params, state, trees)[0].shape
        (2, 5)
    """
    leaf, pair, head = _leaf(config), _pair(config.width), nn.dense(config.outputs)

    def init(key, x_spec):
        return tree_lstm(config).init(key, forest(x_spec))

    def apply(params, model_state, x: Sequence[Tree], *, key=None, train=False):
        def value(tree: Tree):
            if _is_token(tree):
                nodes = {"argument": jnp.asarray([tree], jnp.int32)}
                return leaf.apply(params["tree"]["leaf"], (), nodes)[0]
            left, right = map(value, tree)
            both = jax.tree.map(lambda a, b: jnp.stack([a, b], 1), left, right)
            return pair.apply(params["tree"]["pair"], (), {"inputs": both})[0]

        roots = jnp.concatenate([value(tree)["hidden"] for tree in x])
        return head.apply(params["head"], (), roots)[0], ()

    return Model(init, apply)


def forest(trees: Sequence[Tree], *, width: int = 128) -> dict[str, np.ndarray]:
    """Trees as arrays, their nodes in the order in which they can be computed together.

    Args:
        trees: each a token, or a pair of trees.
        width: nodes that are computed together, at most.

    Raises:
        LayerError: something that is neither a token nor a pair.

    Example:
        >>> from functorch_kit import models
        >>> models.forest([((3, 1), 4), (1, 5)], width=8)["op"].tolist()
        [0, 1, 1, -1]
    """
    return schedule([_nodes(tree) for tree in trees], width=width, most_inputs=2)


def _nodes(tree: Tree) -> list[Node]:
    """Inputs first; with a stack of its own, so that a tree may be as deep as it likes."""
    nodes: list[Node] = []
    done: list[int] = []
    waiting: list[tuple[Tree, bool]] = [(tree, False)]
    while waiting:
        tree, is_below_done = waiting.pop()
        if is_below_done:
            right, left = done.pop(), done.pop()
            nodes.append(Node(_PAIR, (left, right)))
        elif _is_token(tree):
            nodes.append(Node(_LEAF, argument=int(tree)))
        elif isinstance(tree, Sequence) and len(tree) == 2:
            waiting += [(tree, True), (tree[1], False), (tree[0], False)]
            continue
        else:
            raise LayerError(f"forest: {tree!r} is neither a token nor a pair of trees")
        done.append(len(nodes) - 1)
    return nodes


def _is_token(tree: Tree) -> bool:
    return isinstance(tree, int | np.integer) and not isinstance(tree, bool)


def _leaf(config: TreeLSTMConfig) -> Model:
    """The cell, and the gate of what is told of it, from a token's vector."""

    def forward(part, x):
        word = part("word", x["argument"])
        cell = part("cell", word)
        return {"hidden": jax.nn.sigmoid(part("output", word)) * jnp.tanh(cell), "cell": cell}

    return nn.graph(
        forward,
        word=nn.embedding(config.vocabulary, config.embedding),
        cell=nn.dense(config.width),
        output=nn.dense(config.width),
    )


def _pair(width: int) -> Model:
    """Five gates from both sides: input, forget left, forget right, new, output."""

    def forward(part, x):
        hidden, cell = x["inputs"]["hidden"], x["inputs"]["cell"]
        gates = part("left", hidden[:, 0]) + part("right", hidden[:, 1])
        enter, left, right, new, output = jnp.split(gates, 5, -1)
        kept = jax.nn.sigmoid(left) * cell[:, 0] + jax.nn.sigmoid(right) * cell[:, 1]
        made = jax.nn.sigmoid(enter) * jnp.tanh(new) + kept
        return {"hidden": jax.nn.sigmoid(output) * jnp.tanh(made), "cell": made}

    return nn.graph(forward, left=nn.dense(5 * width), right=nn.dense(5 * width))
