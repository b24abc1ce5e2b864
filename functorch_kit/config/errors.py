"""What is said of a configuration that cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from functorch_kit.errors import UserError

_LONGEST = 60


class ConfigError(UserError, ValueError):
    """A setting that does not exist, has a wrong value, or does not go with another.

    Example:
        >>> issubclass(ConfigError, ValueError)
        True
    """


def shown(value: Any) -> str:
    """A value as it is quoted in a message: short, on one line, as one would type it.

    Example:
        >>> shown(None), shown(True), shown("a, b"), len(shown("x" * 1000))
        ('null', 'true', "'a, b'", 60)
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def named(name: Any) -> str:
    """A name in a message: as it is, or quoted and shortened where it is no plain name.

    Example:
        >>> named("train.steps"), named("a b")
        ('train.steps', "'a b'")
    """
    plain = isinstance(name, str) and len(name) <= _LONGEST
    if plain and name.replace(".", "").replace("_", "").replace("/", "").isalnum():
        return name
    return shown(name)


def listed(words: Iterable[str]) -> str:
    """Words as a sentence lists them.

    Example:
        >>> listed(["auto", "chunk", "single"])
        'auto, chunk or single'
    """
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one was most likely meant to be, or None if none is near.

    A name without its group is compared with the last part of each known name, too.

    Example:
        >>> known = ["optimizer.learning_rate", "train.steps", "seed"]
        >>> nearest("optimizer.learning_rat", known), nearest("learning_rate", known)
        ('optimizer.learning_rate', 'optimizer.learning_rate')
        >>> print(nearest("colour", known))
        None
    """
    known = list(known)
    name = name[:200].lower()  # comparing takes the product of the lengths

    def likeness(one: str, other: str) -> float:
        return difflib.SequenceMatcher(None, one, other).ratio()

    group, dot, last = name.rpartition(".")

    def best(candidate: str) -> float:
        its_group, _, its_last = candidate.rpartition(".")
        if not dot:
            begun = 0.85 if len(name) > 2 and its_last.startswith(name) else 0.0
            return max(likeness(name, candidate), likeness(name, its_last), begun)
        # A group that is right says nothing of what was meant inside it.
        if group == its_group and likeness(last, its_last) < 0.4:
            return 0.0
        return likeness(name, candidate)

    found = max(known, key=best, default=None)
    return found if found is not None and best(found) >= 0.6 else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """``": did you mean …?"``, or nothing where no known name is near.

    Example:
        >>> suggestion("resnett", ["resnet", "vgg"])
        ': did you mean resnet?'
    """
    found = nearest(name, known)
    return f": did you mean {found}?" if found else ""
