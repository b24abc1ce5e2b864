"""Settings as the words of a command line, in the syntax that the scripts read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

# What the scripts read as text without quotes; anything else might be a number, a list, a function.
_BARE = re.compile(r"(?:\.{0,2}/|[A-Za-z_*])[A-Za-z0-9_./:@%+*-]*")
_NOT_TEXT = {"null", "true", "false", "nan", "inf"}
# Words of these alone mean the same typed, quoted, and as the output of another command.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=\[\]*-]+")


def override_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as overrides, one word each.

    Args:
        settings: dotted names with numbers, strings, booleans, lists or None. The choice of a group
            is the setting ``name`` in it: ``model.name``.

    Returns:
        Words in Hydra's syntax, choices of groups before what is chosen in them.

    Example:
        >>> override_words({"optimizer.learning_rate": 1e-05, "model.hidden": [64, 32]})
        ['optimizer.learning_rate=1e-05', 'model.hidden=[64,32]']
        >>> override_words({"model.dropout": None, "model.name": "mlp", "data.path": "a b"})
        ['model=mlp', 'model.dropout=null', "data.path='a b'"]
    """
    choices = [name for name in settings if is_choice(name)]
    others = [name for name in settings if name not in choices]
    return [f"{setting_label(name)}={_value(settings[name])}" for name in [*choices, *others]]


def one_line(words: Sequence[str]) -> str:
    """Words as a shell reads them, quoted where they must be.

    Args:
        words: see ``override_words``.

    Returns:
        One line. Where no word needs quotes, it may also stand as ``$(…)`` on a command line.

    Example:
        >>> one_line(["seed=3", "model.hidden=[64,32]"])
        'seed=3 model.hidden=[64,32]'
        >>> print(one_line(["seed=3", "data.path='a b'"]))
        seed=3 'data.path='"'"'a b'"'"''
    """
    return " ".join(words) if are_plain(words) else shlex.join(words)


def are_plain(words: Sequence[str]) -> bool:
    """Whether the words are the same with and without a shell's quotes.

    Example:
        >>> are_plain(["seed=3"]), are_plain(["data.path='a b'"])
        (True, False)
    """
    return all(_PLAIN.fullmatch(word) for word in words)


def is_choice(name: str) -> bool:
    """Whether a setting is the choice of a group.

    Example:
        >>> is_choice("model.name"), is_choice("model.hidden")
        (True, False)
    """
    return name.endswith(".name")


def setting_label(name: str) -> str:
    """A setting as it is typed.

    Example:
        >>> setting_label("model.name"), setting_label("model.hidden")
        ('model', 'model.hidden')
    """
    return name.removesuffix(".name") if is_choice(name) else name


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        entries = (f"{_text(str(key))}:{_value(each)}" for key, each in value.items())
        return f"{{{','.join(entries)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_value(each) for each in value)}]"
    if isinstance(value, str):
        return _text(value)
    return repr(value)


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    # As Hydra has it: a backslash counts only before a quote, or before the closing one.
    inner = re.sub(r"(\\*)'", lambda found: 2 * found[1] + r"\'", text)
    inner = re.sub(r"\\+$", lambda found: 2 * found[0], inner)
    return f"'{inner}'"
