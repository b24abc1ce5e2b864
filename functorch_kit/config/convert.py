"""From nested dicts to a checked ``Config`` and back."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from functorch_kit.config.checks import checked
from functorch_kit.config.errors import ConfigError, listed, named, shown, suggestion
from functorch_kit.config.schema import GROUPS, Config, choice_of
from functorch_kit.config.settings import Setting, setting_of
from functorch_kit.config.together import go_together


class Slot(NamedTuple):
    """A place for a value: its type, its setting, and the choice it belongs to (or "")."""

    kind: Any
    setting: Setting
    choice: str


def from_dict(values: Any, schema: type = Config) -> Any:
    """A configuration from nested plain values; what is missing takes its default.

    Args:
        values: as ``to_dict`` returns it, or as it was read from a file. A group is a dict with
            ``name``, the choice, and the choice's own settings.
        schema: the dataclass of the configuration; fields named like a group are groups.

    Returns:
        An instance of ``schema``.

    Raises:
        ConfigError: an unknown name, a value of the wrong type or out of range, settings that do
            not go together.

    Example:
        >>> from_dict({"model": {"name": "mlp", "hidden": [64]}, "seed": 3}).model.hidden
        (64,)
        >>> from_dict({"optimizer": {"learning_rat": 1}})
        Traceback (most recent call last):
        functorch_kit...ConfigError: optimizer.learning_rat is not a setting:
        did you mean optimizer.learning_rate?
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"a configuration is {shown(values)}: give names with values")
    kinds = typing.get_type_hints(schema)
    known = {field.name: field for field in dataclasses.fields(schema)}
    for name in values:
        if name not in known:
            raise unknown(str(name), schema)
    made: dict[str, Any] = {}
    for name, field in known.items():
        if name in GROUPS:
            made[name] = _section(name, values.get(name, {}), schema)
        else:
            value = values.get(name, field.default)
            made[name] = checked(name, value, kinds[name], setting_of(field))
    config = schema(**made)
    go_together(config)
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, ready for YAML or JSON.

    Example:
        >>> from functorch_kit.config.schema import Config
        >>> to_dict(Config())["model"]
        {'name': 'cnn', 'features': [32, 64], 'dense': 128, 'dropout': 0.3}
        >>> from_dict(to_dict(Config())) == Config()
        True
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in GROUPS and dataclasses.is_dataclass(value):  # mesh.data is no group
            name = {"name": choice_of(value)} if len(GROUPS[field.name]) > 1 else {}
            value = {**name, **to_dict(value)}
        values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


@functools.cache
def slots(schema: type = Config) -> dict[str, list[Slot]]:
    """Every setting of a schema by its dotted name, whatever is chosen in its groups.

    Example:
        >>> [slot.choice for slot in slots()["model.features"]], len(slots()["seed"])
        (['model=cnn'], 1)
    """
    found: dict[str, list[Slot]] = {}

    def add(prefix: str, choice: str, owner: type) -> None:
        kinds = typing.get_type_hints(owner)
        for field in dataclasses.fields(owner):
            if prefix or field.name not in GROUPS:
                slot = Slot(kinds[field.name], setting_of(field), choice)
                found.setdefault(prefix + field.name, []).append(slot)

    for field in dataclasses.fields(schema):
        for name, option in GROUPS.get(field.name, {}).items():
            add(f"{field.name}.", f"{field.name}={name}", option)
    add("", "", schema)
    return found


def unknown(name: str, schema: type = Config, chosen: str = "") -> ConfigError:
    """What to say of a name that is no setting, or none of what was chosen.

    Args:
        name: dotted name.
        schema: the dataclass of the configuration.
        chosen: the choice in the name's group, such as ``"model=cnn"``, where it is known.

    Example:
        >>> print(unknown("model.features", chosen="model=mlp"))
        model.features is a setting of model=cnn, not of model=mlp
    """
    known = slots(schema)
    if name in known:
        owners = listed(_few([slot.choice for slot in known[name]]))
        rest = chosen or f"the {name.partition('.')[0]} that is chosen here"
        return ConfigError(f"{name} is a setting of {owners}, not of {rest}")
    group = name.partition(".")[0]
    own = [key for key, places in known.items() if chosen in {slot.choice for slot in places}]
    near = suggestion(name, own) if chosen else ""
    groups = [field.name for field in dataclasses.fields(schema) if field.name in GROUPS]
    near = near or suggestion(name, known if "." in name else [*known, *groups])
    if not near and group in groups:
        names = own if chosen else [key for key in known if key.startswith(f"{group}.")]
        near = f": {chosen or group} takes {listed(sorted(names)) if names else 'none'}"
    return ConfigError(f"{named(name)} is not a setting{near or ': see --help'}")


def unknown_choice(group: str, value: Any, choices: list[str]) -> ConfigError:
    """What to say of a choice that does not exist.

    Example:
        >>> print(unknown_choice("model", "mpl", ["cnn", "mlp"]))
        model=mpl is not a choice: choose cnn or mlp; did you mean mlp?
    """
    typed = named(value) if isinstance(value, str) else shown(value)
    hint = suggestion(value, choices).replace(": ", "; ") if isinstance(value, str) else ""
    few = _few(choices, 12)
    more = "" if len(few) == len(choices) else ", see --help"
    return ConfigError(f"{group}={typed} is not a choice: choose {listed(few)}{more}{hint}")


def _few(choices: list[str], most: int = 5) -> list[str]:
    """Choices as a message lists them: of more than ``most``, the first and how many others."""
    return choices if len(choices) <= most else [*choices[:4], f"{len(choices) - 4} others"]


def _section(group: str, values: Any, schema: type) -> Any:
    choices = GROUPS[group]
    if not isinstance(values, Mapping):
        raise unknown_choice(group, values, list(choices))
    default = next(f for f in dataclasses.fields(schema) if f.name == group).default_factory
    first = choice_of(default())  # type: ignore[misc]
    values = dict(values)
    name = values.pop("name", first) if len(choices) > 1 else first
    if not isinstance(name, str) or name not in choices:
        raise unknown_choice(group, name, list(choices))
    option = choices[name]
    kinds = typing.get_type_hints(option)
    known = {field.name: field for field in dataclasses.fields(option)}
    for key in values:
        if key not in known:
            raise unknown(f"{group}.{key}", schema, f"{group}={name}")
    made = {
        key: checked(
            f"{group}.{key}", values.get(key, field.default), kinds[key], setting_of(field)
        )
        for key, field in known.items()
    }
    return option(**made)
