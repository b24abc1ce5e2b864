"""Whether one value fits one setting, and what to say if it does not."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
import types
import typing
from typing import Any

from functorch_kit.config.errors import ConfigError, listed, shown, suggestion
from functorch_kit.config.settings import Setting


def checked(name: str, value: Any, kind: Any, setting: Setting) -> Any:
    """A value as its setting keeps it: whole numbers become floats where floats are wanted.

    Args:
        name: dotted name of the setting, for messages.
        value: as it came from a file or a command line; lists stand for tuples.
        kind: bool, int, float, str, one of these ``| None``, or a tuple of them.
        setting: bounds and choices.

    Raises:
        ConfigError: the value does not fit; the message says what would.

    Example:
        >>> checked("train.steps", 10, int, Setting(least=1))
        10
        >>> checked("train.steps", "abc", int, Setting(least=1))
        Traceback (most recent call last):
        functorch_kit...ConfigError: train.steps is 'abc': give a whole number, 1 or more
    """
    plain = plain_kind(kind)
    if value is None and setting.needed:
        raise ConfigError(f"{name} is missing: give {name}={setting.needed}")
    if value is None and plain is not kind:
        return None
    entries = typing.get_args(plain)
    if entries:
        return _list(name, value, entries, setting)
    if setting.choices and not (isinstance(value, str) and value in setting.choices):
        hint = suggestion(value, setting.choices) if isinstance(value, str) else ""
        allowed = listed(setting.choices)
        raise ConfigError(f"{name} is {shown(value)}: choose {allowed}{hint.replace(': ', '; ')}")
    if setting.pairs:
        pair(name, value, setting)
        return value
    if plain is bool or plain is str:
        if not isinstance(value, plain) or "\0" in str(value):
            raise _wrong(name, value, plain, setting)
        return value
    return _number(name, value, plain, setting)


def expected(kind: Any, setting: Setting, *, upper: bool = False) -> str:
    """What a setting takes, in words.

    Example:
        >>> expected(float, Setting(least=0, below=1))
        'a number from 0 up to but not including 1'
    """
    plain = plain_kind(kind)
    entries = typing.get_args(plain)
    if entries:
        few = "" if Ellipsis in entries else f"{len(entries)} "
        bounds = setting.bounds(upper=upper).lstrip(",").lstrip()
        entry = "<path pattern>=<factor>" if setting.pairs else setting.entry or _plural(entries[0])
        return f"a list of {few}{entry}" + (f", each {bounds}" if bounds else "")
    if setting.choices:
        return listed(setting.choices)
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    return words[plain] + setting.bounds(upper=upper)


def pair(name: str, value: Any, setting: Setting) -> tuple[str, float]:
    """The two parts of ``path pattern=factor``.

    Raises:
        ConfigError: it is no such text, or the factor is out of bounds.

    Example:
        >>> pair("optimizer.learning_rates[0]", "blocks/*/mlp=0.5", Setting(pairs=True))
        ('blocks/*/mlp', 0.5)
    """
    pattern, sign, factor = value.rpartition("=") if isinstance(value, str) else ("", "", "")
    number = None
    with contextlib.suppress(ValueError):
        number = float(factor)
    if not sign or not pattern.strip() or number is None or "\0" in pattern:
        raise ConfigError(f"{name} is {shown(value)}: give a path pattern=factor, such as stem=0.1")
    bounds = dataclasses.replace(setting, pairs=False, least=0, most=1e6, traced=True)
    return pattern.strip(), checked(f"the factor in {name}", number, float, bounds)


def plain_kind(kind: Any) -> Any:
    """A type without its ``| None``.

    Example:
        >>> plain_kind(int | None), plain_kind(str)
        (<class 'int'>, <class 'str'>)
    """
    if isinstance(kind, types.UnionType):
        (plain,) = (part for part in typing.get_args(kind) if part is not type(None))
        return plain
    return kind


def _list(name: str, value: Any, entries: tuple[Any, ...], setting: Setting) -> tuple[Any, ...]:
    open_ended = Ellipsis in entries
    example = ", ".join(["64"] * (2 if open_ended else len(entries)))
    if names := setting.choices or setting.examples:
        example = ", ".join(names[:2])
    elif entries[0] is str:
        example = '"stem=0.1"' if setting.pairs else '"**/bias"'
    remedy = f"give {expected(tuple[entries], setting)}, such as [{example}]"
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} is {shown(value)}: {remedy}")
    if not open_ended and len(value) != len(entries):
        raise ConfigError(f"{name} has {len(value)} entries: {remedy}")
    if open_ended and not setting.fewest <= len(value) <= setting.length:
        raise ConfigError(
            f"{name} has {len(value)} entries: give from {setting.fewest} to {setting.length}"
        )
    return tuple(
        checked(f"{name}[{index}]", entry, entries[0], setting) for index, entry in enumerate(value)
    )


def _number(name: str, value: Any, kind: type, setting: Setting) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise _wrong(name, value, kind, setting)
    try:
        number = kind(value)
    except OverflowError:
        raise _wrong(name, value, kind, setting, upper=True) from None
    if isinstance(number, float) and not math.isfinite(number):
        raise _wrong(name, value, kind, setting)
    if not setting.admits(number):
        upper = setting.most is not None and number > setting.most
        raise _wrong(name, value, kind, setting, upper=upper)
    if setting.traced and (used := _in_32_bits(number)) != number and not setting.admits(used):
        remedy = expected(kind, setting, upper=True)
        raise ConfigError(f"{name} is {shown(value)}, which is {used:g} in 32 bits: give {remedy}")
    return number


def _in_32_bits(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


def _wrong(
    name: str, value: Any, kind: Any, setting: Setting, *, upper: bool = False
) -> ConfigError:
    return ConfigError(f"{name} is {shown(value)}: give {expected(kind, setting, upper=upper)}")


def _plural(kind: type) -> str:
    return {int: "whole numbers", float: "numbers", str: "names", bool: "true or false"}[kind]
