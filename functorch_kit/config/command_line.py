"""Checks of single overrides such as ``train.steps=5``, before a configuration is composed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from functorch_kit.config.checks import checked, plain_kind
from functorch_kit.config.convert import slots, unknown, unknown_choice
from functorch_kit.config.errors import ConfigError, named, shown, suggestion
from functorch_kit.config.schema import GROUPS, Config


def groups(schema: type = Config) -> dict[str, list[str]]:
    """Group -> names of its choices.

    Example:
        >>> groups()["schedule"][:3]
        ['constant', 'warmup', 'linear']
    """
    names = [field.name for field in dataclasses.fields(schema)]
    return {name: list(GROUPS[name]) for name in names if name in GROUPS}


def check_name(name: str, schema: type = Config) -> None:
    """Refuse a name that is no setting, whatever is chosen.

    Raises:
        ConfigError: with the nearest name that is one.

    Example:
        >>> check_name("train.stesp")
        Traceback (most recent call last):
        functorch_kit...ConfigError: train.stesp is not a setting: did you mean train.steps?
    """
    group, _, rest = name.partition(".")
    if rest == "name" and len(GROUPS.get(group, ())) > 1:
        raise ConfigError(f"{name} follows from the choice: give {group}={[*GROUPS[group]][-1]}")
    if name not in slots(schema):
        raise unknown(name, schema)


def check_value(name: str, value: Any, schema: type = Config) -> None:
    """Refuse a value that fits no setting of that name, whatever is chosen.

    Values with a ``${reference}`` are left to the check of the whole configuration.

    Raises:
        ConfigError: with what would fit.

    Example:
        >>> check_value("train.batch_size", 0)
        Traceback (most recent call last):
        functorch_kit...ConfigError: train.batch_size is 0: give a whole number, 1 or more
    """
    if "${" in str(value):
        return
    refusals: list[ConfigError] = []
    for slot in slots(schema)[name]:
        try:
            checked(name, value, slot.kind, slot.setting)
            return
        except ConfigError as error:
            refusals.append(error)
    raise refusals[0]


def check_choice(group: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a choice that a group does not have.

    Raises:
        ConfigError: with the choices there are.

    Example:
        >>> check_choice("model", "resnett", ["cnn", "mlp"])
        Traceback (most recent call last):
        functorch_kit...ConfigError: model=resnett is not a choice: choose cnn or mlp
    """
    if not isinstance(value, str) or value not in choices:
        raise unknown_choice(group, value, list(choices))


def is_text(name: str, schema: type = Config) -> bool:
    """Whether a setting takes text, so that ``run_dir=2026_01`` is no number.

    Example:
        >>> is_text("run_dir"), is_text("train.steps")
        (True, False)
    """
    return any(plain_kind(slot.kind) is str for slot in slots(schema).get(name, ()))


def refuse_added(name: str, typed: str, known: Iterable[str]) -> ConfigError:
    """What to say of ``+name=…``, ``++name=…`` and ``~name``.

    Args:
        name: the name in it.
        typed: all of it.
        known: names of settings and groups.

    Example:
        >>> print(refuse_added("new", "+new=1", ["seed"]))
        '+new=1' adds a setting: only those that exist can be changed, see --help
        >>> print(refuse_added("seed", "+seed=1", ["seed"]))
        '+seed=1' adds a setting, and seed exists: leave out the sign
    """
    verb = "removes" if typed.startswith("~") else "adds"
    known = list(known)
    if name in known and verb == "adds":
        return ConfigError(
            f"{shown(typed)} adds a setting, and {named(name)} exists: leave out the sign"
        )
    hint = suggestion(name, known).removeprefix(": ") if verb == "adds" else ""
    rest = f"; {hint}" if hint else ", see --help"
    return ConfigError(
        f"{shown(typed)} {verb} a setting: only those that exist can be changed{rest}"
    )
