"""How a foreign module is told that it trains: each library, and each author, has a word for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Flags = Callable[[bool], Mapping[str, Any]]
"""``flags(train)`` returns the keyword arguments that say so to a module."""

_OF_TRAINING = ("train", "training", "is_training")
_OF_EVALUATION = ("deterministic", "use_running_average", "inference")


def flags_of(function: Callable[..., Any]) -> Flags:
    """Keyword arguments for training and for evaluation, by the names that a function takes.

    ``train``, ``training`` and ``is_training`` are true in training; ``deterministic``,
    ``use_running_average`` and ``inference`` are true in evaluation. A function that has none of
    these is told nothing.

    Args:
        function: such as the ``__call__`` of a module.

    Example:
        >>> flags = flags_of(lambda x, *, deterministic: x)
        >>> flags(True), flags(False)
        ({'deterministic': False}, {'deterministic': True})
    """
    taken = parameters_of(function)
    true = [name for name in _OF_TRAINING if name in taken]
    false = [name for name in _OF_EVALUATION if name in taken]

    def flags(train: bool) -> dict[str, Any]:
        return {**dict.fromkeys(true, train), **dict.fromkeys(false, not train)}

    return flags


def parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters of a function; none where Python cannot tell.

    Example:
        >>> sorted(parameters_of(lambda x, *, key=None: x))
        ['key', 'x']
    """
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()
