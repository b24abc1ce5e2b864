"""Nested dicts from leaves by path, and back: the form in which params are addressed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Nested dicts of leaves by path.

    Args:
        leaves: none of their paths begins another.

    Example:
        >>> nested({("head", "kernel"): 1, ("head", "bias"): 2})
        {'head': {'kernel': 1, 'bias': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        at = tree
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = leaf
    return tree


def leaf_at(tree: Any, path: tuple[str, ...]) -> Any:
    """The leaf of nested dicts at a path.

    Example:
        >>> leaf_at({"head": {"bias": 2}}, ("head", "bias"))
        2
    """
    for name in path:
        tree = tree[name]
    return tree
