"""What is said of a module or a file that does not fit."""

from __future__ import annotations

import importlib
from types import ModuleType

from functorch_kit.errors import UserError


class InteropError(UserError, ValueError):
    """A foreign module, or a file of weights, that cannot be used; one line says why."""


def library(name: str, package: str) -> ModuleType:
    """A library that is asked for where it is used, and not before.

    Args:
        name: dotted name of its module.
        package: what brings it, for the message.

    Raises:
        InteropError: it is not installed.

    Example:
        >>> library("json", "json").__name__
        'json'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise  # it is there, and something of its own is missing
        raise InteropError(
            f"{package} is not installed: pip install 'functorch_kit[interop]' brings it"
        ) from None
