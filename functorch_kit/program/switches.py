"""Variants in words: independent switches joined by ``+``, such as ``scan=10+donate``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from functorch_kit.errors import UserError

MODES = ("eager", "disable_jit", "jit", "aot", "scan", "as_given")
"""How a function is executed; of these a variant has one, ``jit`` if it names none."""

SWITCHES: dict[str, str] = {
    **dict.fromkeys(MODES, ""),
    "scan": "steps?",
    "unroll": "",
    "donate": "",
    "vmap": "",
    "sharded": "devices",
    "cold": "",
    "warm": "",
}
"""Word -> the number it takes: ``""`` none, ``devices`` one, ``steps?`` perhaps one."""


_WITHOUT_PROGRAM = {("vmap", "eager"), ("vmap", "disable_jit")}


class ComparisonError(UserError, ValueError):
    """A comparison cannot be made as asked; the message says what to change.

    Example:
        >>> try:
        ...     read_switches("jitt")
        ... except ComparisonError as error:
        ...     print(str(error)[:54])
        variants: there is no 'jitt', did you mean 'jit'? (one
    """


@dataclass(frozen=True)
class Switches:
    """How a function is executed.

    Attributes:
        mode: one of ``MODES``.
        length: steps in one ``scan``.
        unroll: whether they are written out instead of looped over.
        donate: whether the carried argument's memory may hold the result.
        vmap: whether the function is mapped over an axis of one.
        devices: over how many devices the batch is split; None for one device, no mesh.
        cache: ``cold`` compiles into an empty compilation cache, ``warm`` finds the program there;
            None compiles without a cache.
    """

    mode: str = "jit"
    length: int = 10
    unroll: bool = False
    donate: bool = False
    vmap: bool = False
    devices: int | None = None
    cache: str | None = None


def read_words(variant: str, known: Mapping[str, str]) -> dict[str, int | None]:
    """Split a variant into its words and their numbers.

    Args:
        variant: such as ``scan=10+donate``.
        known: see ``SWITCHES``.

    Returns:
        Word -> number, None where none is given.

    Raises:
        ComparisonError: an unknown or repeated word, a number that is missing, not wanted or
            below 1.

    Example:
        >>> read_words("scan=10+donate", SWITCHES)
        {'scan': 10, 'donate': None}
    """
    found: dict[str, int | None] = {}
    for text in variant.replace(" ", "").split("+"):
        word, equals, number = text.partition("=")
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ComparisonError(
                f"variants: there is no {word!r}{hint} (one or more of"
                f" {', '.join(_shown(each, known[each]) for each in known)}, joined by '+')"
            )
        if word in found:
            raise ComparisonError(f"variants: {variant!r} says {word!r} twice")
        wanted = known[word]
        if equals and not wanted:
            raise ComparisonError(f"variants: {word!r} takes no number, but {variant!r} gives one")
        if not equals and wanted and not wanted.endswith("?"):
            raise ComparisonError(
                f"variants: {word!r} in {variant!r} needs a number: {_shown(word, wanted)}"
            )
        if equals and (not number.isascii() or not number.isdigit() or int(number) < 1):
            raise ComparisonError(
                f"variants: {text!r} in {variant!r}: give a whole number from 1 up"
            )
        found[word] = int(number) if equals else None
    return found


def read_switches(variant: str, *, scan_length: int = 10) -> Switches:
    """Read a variant that says how a function is executed.

    Args:
        variant: words of ``SWITCHES`` joined by ``+``.
        scan_length: the length of a ``scan`` that names none.

    Returns:
        The switches.

    Raises:
        ComparisonError: a word that is unknown, or words that contradict each other.

    Example:
        >>> read_switches("scan=4+donate")
        Switches(mode='scan', length=4, unroll=False, donate=True, vmap=False, devices=None,
        cache=None)
        >>> read_switches("sharded=2").mode
        'jit'
    """
    words = read_words(variant, SWITCHES)
    contradiction(variant, words, MODES)
    contradiction(variant, words, ("cold", "warm"))
    mode = next((word for word in MODES if word in words), "jit")
    if "unroll" in words and mode != "scan":
        raise ComparisonError(f"variants: {variant!r} has no loop to unroll: add scan")
    if mode in ("eager", "disable_jit", "as_given"):
        for word in (
            "donate",
            "sharded",
            "cold",
            "warm",
            *(("vmap",) if mode == "as_given" else ()),
        ):
            if word in words:
                raise ComparisonError(
                    f"variants: {variant!r} contradicts itself: {word!r} needs a program that"
                    f" compare compiles, and {mode!r} has none; take jit, aot or scan"
                )
    return Switches(
        mode=mode,
        length=words.get("scan") or scan_length,
        unroll="unroll" in words,
        donate="donate" in words,
        vmap="vmap" in words,
        devices=words.get("sharded"),
        cache=next((word for word in ("cold", "warm") if word in words), None),
    )


def contradiction(variant: str, words: Mapping[str, object], exclusive: tuple[str, ...]) -> None:
    """Refuse a variant that has more than one of several words.

    Raises:
        ComparisonError: it has.

    Example:
        >>> contradiction("jit", {"jit": None}, ("jit", "aot"))
    """
    both = [word for word in exclusive if word in words]
    if len(both) > 1:
        raise ComparisonError(
            f"variants: {variant!r} contradicts itself: {both[0]!r} or {both[1]!r}, not both"
        )


def _shown(word: str, wanted: str) -> str:
    if not wanted:
        return word
    number = f"=<{wanted.rstrip('?')}>"
    return f"{word}[{number}]" if wanted.endswith("?") else f"{word}{number}"
