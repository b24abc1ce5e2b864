"""A setting: a dataclass field that says what values it takes."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field of the schema takes, beside its type.

    Attributes:
        text: what it is, for the help.
        least: smallest value allowed.
        above: every value has to be larger than this.
        most: largest value allowed.
        below: every value has to be smaller than this.
        choices: the only values allowed.
        examples: values to show where a list of text cannot be read.
        traced: it only changes numbers, so it is an argument of the compiled programs, and each
            entry of a list is one.
        off: the value that switches a part off. It stays a Python number, so that the part costs
            nothing; going from off to on is another program.
        needed: it has no default; the text says what to give.
        fewest: of a list: how many entries at least.
        length: of a list: how many entries at most.
        entry: of a list: what its entries are called.
        pairs: a list of ``path pattern=factor``; the bounds are those of the factors, which are
            arguments of the compiled programs.
    """

    text: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    traced: bool = False
    off: float | None = None
    needed: str = ""
    fewest: int = 1
    length: int = 64
    entry: str = ""
    pairs: bool = False

    def admits(self, value: float) -> bool:
        """Whether a number lies within the bounds."""
        return not (
            (self.least is not None and value < self.least)
            or (self.above is not None and value <= self.above)
            or (self.most is not None and value > self.most)
            or (self.below is not None and value >= self.below)
        )

    def bounds(self, *, upper: bool) -> str:
        """The bounds in words; ``upper`` says whether a large upper bound is worth a mention.

        Example:
            >>> small = Setting(least=1, most=9)
            >>> small.bounds(upper=False), small.bounds(upper=True)
            (', 1 or more', ' from 1 to 9')
        """
        if self.least is not None and self.below is not None:
            return f" from {self.least:g} up to but not including {self.below:g}"
        if self.least is not None:
            if self.most is not None and (upper or self.most <= 1):
                return f" from {self.least:.15g} to {self.most:.15g}"
            return f", {self.least:g} or more"
        if self.above is not None:
            return f" above {self.above:g}" + (
                f" and up to {self.most:g}"
                if self.most is not None and (upper or self.most <= 1)
                else ""
            )
        return ""


def setting(default: Any, text: str, **options: Any) -> Any:
    """A dataclass field with a ``Setting``.

    Args:
        default: its default.
        text: what it is, for the help.
        **options: the other attributes of ``Setting``.

    Example:
        >>> @dataclasses.dataclass
        ... class Train:
        ...     steps: int = setting(100, "optimizer steps", least=1)
        >>> Train().steps, setting_of(dataclasses.fields(Train)[0]).least
        (100, 1)
    """
    return dataclasses.field(default=default, metadata={"setting": Setting(text, **options)})


def setting_of(field: dataclasses.Field) -> Setting:
    """The ``Setting`` of a dataclass field; one without bounds where it has none.

    Example:
        >>> @dataclasses.dataclass
        ... class Plain:
        ...     x: int = 0
        >>> setting_of(dataclasses.fields(Plain)[0]).admits(-5)
        True
    """
    return field.metadata.get("setting", Setting())
