"""Overrides such as ``train.steps=5``, checked one by one before Hydra composes them."""

import re
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from functorch_kit.config import (
    ConfigError,
    check_choice,
    check_name,
    check_value,
    groups,
    is_text,
    refuse_added,
    slots,
)
from functorch_kit.config.errors import shown

_WORDS_WITH_NUMBERS = re.compile(r"\[[\w+, ]*=[\w+,= ]*\]")


class Checked(NamedTuple):
    """Overrides as Hydra is to read them, the names they set, and whether there are many runs."""

    overrides: tuple[str, ...]
    names: tuple[str, ...]
    several: bool


def read_arguments(words: Sequence[str]) -> Namespace:
    """Hydra's own options, and the overrides."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}: settings are written name=value, see --help")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_args(words)


def check_overrides(
    arguments: Namespace, schema: type, experiments: Sequence[str], unused: Sequence[str]
) -> Checked:
    """Refuse the first override that cannot be meant.

    Raises:
        ConfigError: naming it, with the nearest that can.
    """
    several = arguments.multirun or any(
        word.partition("=")[0] == "hydra.mode" and "multirun" in word.lower()
        for word in arguments.overrides
    )
    choices = groups(schema)
    if choices:
        choices["experiment"] = list(experiments)
    read: list[str] = []
    names: list[str] = []
    for typed in arguments.overrides:
        word = _as_text(typed, schema, several)
        read.append(word)
        if typed.lstrip("+~").startswith(("hydra.", "hydra/")):
            if not several and typed.startswith(("hydra/launcher", "hydra.launcher")):
                raise ConfigError(f"{shown(typed)} is for several runs: add -m")
            continue
        names.append(_check_override(typed, word, schema, choices, unused, several))
    if several and (folder := _only(read, "run_dir=")):
        read.append(f"hydra.sweep.dir={folder}")
    return Checked(tuple(read), tuple(names), several)


def _check_override(
    typed: str,
    word: str,
    schema: type,
    choices: dict[str, list[str]],
    unused: Sequence[str],
    several: bool,
) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        raise _unreadable(typed) from None
    name = override.key_or_group
    if override.type.name != "CHANGE":
        raise refuse_added(name, typed, [*slots(schema), *choices])
    if override.package is not None:
        raise ConfigError(f"{shown(typed)} places a group elsewhere: write {name}=<choice>")
    if name in unused:
        raise ConfigError(f"{name} means nothing to this script: leave it out")
    if name not in choices:
        check_name(name, schema)
    values: Iterable[object] = [override.value()]
    if override.is_sweep_override():
        if not several:
            raise ConfigError(
                f"{name} has several values: add -m for a run of each, or write a list as [1,2]"
            )
        # Hydra spells out a glob, and refuses what it cannot spell out.
        is_glob = override.value_type is ValueType.GLOB_CHOICE_SWEEP
        is_listed = override.is_discrete_sweep() and not is_glob
        values = override.sweep_iterator() if is_listed else []
    for value in values:
        value = getattr(value, "text", value)  # a quoted string
        if name in choices:
            check_choice(name, value, choices[name])
        else:
            check_value(name, value, schema)
    return name


def _as_text(typed: str, schema: type, several: bool) -> str:
    """Quote what is text anyway: a folder may be called 2026_01, a file may have a comma in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    name, sign, value = typed.partition("=")
    if name == "variants" and _WORDS_WITH_NUMBERS.fullmatch(value):
        # [jit,scan=10]: Hydra knows no = inside a list.
        entries = [entry.strip() for entry in value[1:-1].split(",")]
        quoted = [QuotedString(entry, Quote.single).with_quotes() for entry in entries]
        return f"{name}=[{','.join(quoted)}]"
    is_special = value in ("", "null") or value[0] in "'\"" or "${" in value
    if not sign or is_special or several or not is_text(name, schema):
        return typed
    return f"{name}={QuotedString(value, Quote.single).with_quotes()}"


def _only(words: Iterable[str], start: str) -> str | None:
    return next((word.removeprefix(start) for word in words if word.startswith(start)), None)


def _unreadable(typed: str) -> ConfigError:
    if "=" not in typed:
        return ConfigError(f"{shown(typed)} is not a setting: write name=value, see --help")
    value = typed.partition("=")[2]
    if value.startswith("[") and value.endswith("]"):
        return ConfigError(f'{shown(typed)} cannot be read: write text in a list as ["stem=0.1"]')
    return ConfigError(f"{shown(typed)} cannot be read: write name='value', with the quotes")
