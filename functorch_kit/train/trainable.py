"""Parameters in two: what is trained, and what is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from functorch_kit.train.options import OptionsError
from functorch_kit.train.paths import check_patterns
from functorch_kit.types import Params, path_matches, path_name


def split(params: Params, frozen: Sequence[str]) -> tuple[Params, Params]:
    """``(trainable, fixed)``: two trees of the same nodes, with None for the other's leaves.

    Args:
        params: the parameters.
        frozen: path patterns; none of them leaves the parameters as they are.

    Raises:
        OptionsError: a pattern that names no parameter, or patterns that name all of them.

    Example:
        >>> split({"body": {"kernel": 1}, "head": 2}, ["body"])
        ({'body': {'kernel': None}, 'head': 2}, {'body': {'kernel': 1}, 'head': None})
    """
    if not frozen:
        return params, None
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    check_patterns("frozen", frozen, params)
    if all(any(path_matches(pattern, name) for pattern in frozen) for name in names):
        raise OptionsError("frozen names every parameter: nothing is left to train")

    def part(wanted: bool) -> Params:
        def pick(path, leaf):
            is_frozen = any(path_matches(pattern, path_name(path)) for pattern in frozen)
            return leaf if is_frozen == wanted else None

        return jax.tree_util.tree_map_with_path(pick, params)

    return part(False), part(True)


def join(trainable: Params, fixed: Params) -> Params:
    """The parameters whose two parts ``split`` gave.

    Example:
        >>> join(*split({"body": 1, "head": 2}, ["body"]))
        {'body': 1, 'head': 2}
    """
    if fixed is None:
        return trainable
    return jax.tree.map(
        lambda left, right: right if left is None else left,
        trainable,
        fixed,
        is_leaf=lambda leaf: leaf is None,
    )


def check_trainable(trainable: Params) -> None:
    """Refuse parameters that have no gradient.

    Raises:
        OptionsError: a parameter is no real or complex number.

    Example:
        >>> check_trainable({"kernel": jnp.ones(2)})
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(trainable):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            name = path_name(path)
            raise OptionsError(
                f"parameter {name!r} is {leaf.dtype}, which has no gradient: freeze it"
                f" (frozen=[{name!r}]) or let init return it as model_state"
            )


def frozen_parts(params: Params, frozen: Sequence[str]) -> tuple[str, ...]:
    """Patterns of what is applied as in evaluation: these, and layers whose parameters they name.

    Args:
        params: the parameters.
        frozen: path patterns.

    Example:
        >>> frozen_parts({"norm": {"bias": 0, "scale": 0}, "head": {"bias": 0, "kernel": 0}},
        ...              ["**/bias", "**/scale"])
        ('**/bias', '**/scale', 'norm')
    """
    layers: dict[str, bool] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        layer = path_name(path[:-1])
        is_frozen = any(path_matches(pattern, path_name(path)) for pattern in frozen)
        layers[layer] = layers.get(layer, True) and is_frozen
    return *frozen, *(layer for layer, is_frozen in layers.items() if layer and is_frozen)
