"""Which checkpoints stay: a pure function of what is known of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from functorch_kit.checkpoint.errors import CheckpointError


class Entry(NamedTuple):
    """What is known of a published step without its arrays.

    Attributes:
        path: where it lies.
        sequence: number of its publication, rising.
        score: what it is judged by, smaller is better; None if it was not measured.
        pinned: whether it stays whatever the policy says.
    """

    path: Path
    sequence: int
    score: float | None
    pinned: bool


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints stay; a step that any of the three keeps is not removed.

    Attributes:
        latest: so many of those saved last; two, so that there is one to fall back to.
        best: so many of those with the smallest score.
        every: those whose step is a multiple of it; None for none.

    Example:
        >>> Keep(latest=2, best=1, every=1000)
        Keep(latest=2, best=1, every=1000)
    """

    latest: int = 2
    best: int = 1
    every: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("latest", 1), ("best", 0), ("every", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise CheckpointError(f"keep.{name} is {value}: give a number from {least} up")


def newest_first(entries: Mapping[int, Entry]) -> list[int]:
    """Steps in falling order of their publication."""
    return sorted(entries, key=lambda step: entries[step].sequence, reverse=True)


def best_first(entries: Mapping[int, Entry]) -> list[int]:
    """Steps that have a score, the best first; of equals, the one saved first.

    Not a number is the worst, and of several the one saved last: a run that goes wrong from its
    first evaluation on has nothing better than where it stands.
    """

    def order(step: int) -> tuple[bool, float, int]:
        score, sequence = entries[step].score, entries[step].sequence
        assert score is not None
        if math.isnan(score):
            return True, 0.0, -sequence
        return False, score, sequence

    return sorted((step for step in entries if entries[step].score is not None), key=order)


def kept(entries: Mapping[int, Entry], keep: Keep) -> set[int]:
    """The steps that stay.

    Example:
        >>> entries = {step: Entry(Path(str(step)), step, 1.0 / step, False) for step in (5, 6, 10)}
        >>> sorted(kept(entries, Keep(latest=1, best=1))), sorted(kept(entries, Keep(1, every=5)))
        ([10], [5, 10])
    """
    stay = {*newest_first(entries)[: keep.latest], *best_first(entries)[: keep.best]}
    stay |= {step for step, entry in entries.items() if entry.pinned}
    if keep.every is not None:
        stay |= {step for step in entries if step % keep.every == 0}
    return stay
