"""What may come beside an array: a layer's input is the array, or a dict of ``x`` and more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from functorch_kit.nn.errors import LayerError


def apart(x: Any, layer: str, known: tuple[str, ...] | None = None) -> tuple[Any, dict[str, Any]]:
    """The array of an input, and what came beside it; of arrays and of specs.

    Args:
        x: an array, or a dict of ``x`` and of arrays by name.
        layer: who asks, for the message.
        known: the names that the layer reads; any if None.

    Raises:
        LayerError: a dict without ``x``, or with a name that the layer does not know: it would be
            ignored.

    Example:
        >>> apart({"x": 1, "lengths": 2}, "lstm", ("lengths",))
        (1, {'lengths': 2})
        >>> apart(1, "lstm")
        (1, {})
    """
    if not isinstance(x, Mapping):
        return x, {}
    given = {name: value for name, value in x.items() if name != "x"}
    wrong = [] if known is None else sorted(given.keys() - set(known))
    if "x" not in x or wrong:
        takes = "more" if known is None else ", ".join(known)
        has = ", ".join(map(repr, x))
        raise LayerError(f"{layer}: the input is a dict of {has}: give x and, beside it, {takes}")
    return x["x"], given


def together(x: Any, given: Mapping[str, Any]) -> Any:
    """The opposite of ``apart``.

    Example:
        >>> together(1, {}), together(1, {"lengths": 2})
        (1, {'lengths': 2, 'x': 1})
    """
    return {**given, "x": x} if given else x
