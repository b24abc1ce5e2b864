"""The settings of a configuration, written for a reader of ``--help``."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator

from functorch_kit.config.checks import expected
from functorch_kit.config.errors import shown
from functorch_kit.config.schema import GROUPS, Config
from functorch_kit.config.settings import setting_of


def describe(schema: type = Config, prefix: str = "") -> str:
    """Every setting with its default, what it is and what it takes, by group and choice.

    Args:
        schema: dataclass of a configuration, or of some settings of it.
        prefix: what their names begin with, such as ``"train."``.

    Example:
        >>> print(describe().splitlines()[0])
        model=cnn   3×3 convolutions, one 2×2 max pool, a dense layer with dropout, a dense head.
    """
    return "\n".join(_lines(schema, prefix))


def _lines(schema: type, prefix: str) -> Iterator[str]:
    fields = dataclasses.fields(schema)
    for group in (field.name for field in fields if field.name in GROUPS):
        shared = dict.fromkeys(base for option in GROUPS[group].values() for base in _bases(option))
        for name, option in GROUPS[group].items():
            title = f"{group}={name}" if len(GROUPS[group]) > 1 else group
            yield f"{title}   {(inspect.getdoc(option) or '').splitlines()[0]}"
            yield from _settings(option, f"{group}.")
        for base in shared:
            yield f"{group}   {(inspect.getdoc(base) or '').splitlines()[0]}"
            yield from _settings(base, f"{group}.")
        yield ""
    yield from _settings(schema, prefix, indent="")


def _bases(option: type) -> list[type]:
    """The dataclasses that an option has settings from, which several options share."""
    return [base for base in option.__mro__[1:] if dataclasses.is_dataclass(base)]


def _settings(owner: type, prefix: str, indent: str = "  ") -> Iterator[str]:
    kinds = typing.get_type_hints(owner)
    elsewhere = {field.name for base in _bases(owner) for field in dataclasses.fields(base)}
    for field in dataclasses.fields(owner):
        if (not prefix and field.name in GROUPS) or (prefix and field.name in elsewhere):
            continue
        setting = setting_of(field)
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        start = f"{prefix}{field.name}={setting.needed or shown(default).strip(chr(39))}"
        yield f"{indent}{start:<36} {setting.text} ({expected(kinds[field.name], setting)})"
