"""What two runs leave behind, and where they first differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Difference:
    """Where a run that was killed and resumed first differs from one that was not.

    Attributes:
        step: the first step, from 1 up, of which something differs.
        what: what it is: a metric of that step, or that its row is missing.
        leaf: the first leaf of the state that differs; None if all are the same.
        leaf_step: the first pause, at or after ``step``, where it does.
        of_any_two_runs: whether two runs that nothing was done to differ as well.
    """

    step: int
    what: str
    leaf: str | None
    leaf_step: int | None
    of_any_two_runs: bool = False

    def __str__(self) -> str:
        where = f"from step {self.step} on: {self.what}"
        if self.leaf is not None:
            where += f"; the first leaf is {self.leaf!r}, seen at step {self.leaf_step}"
        return where


class Evidence(NamedTuple):
    """What a run left behind.

    Attributes:
        rows: of ``metrics.jsonl``.
        traces: of each pause: the step, and leaf path -> SHA-256; killed parts included.
        facts: name -> value at the end: best step and value, data position, status, test metrics.
        device: platform and kind.
    """

    rows: list[dict[str, Any]]
    traces: list[tuple[int, dict[str, str]]]
    facts: dict[str, Any]
    device: dict[str, str]


def read(folder: Path) -> Evidence:
    """What a run left in its folder, and ``child`` beside it."""
    # As text: a NaN is equal to itself there.
    rows = [json.loads(line) for line in _lines(folder / "metrics.jsonl")]
    traces = [json.loads(line) for line in _lines(folder.with_suffix(".trace"))]
    facts, device = traces[-1].get("facts", {}), traces[-1].get("device", {})
    return Evidence(rows, [(each["step"], each["leaves"]) for each in traces], facts, device)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def first_difference(straight: Evidence, other: Evidence) -> Difference | None:
    """The first thing that differs, by step; None if everything is the same.

    Example:
        >>> row = {"step": 1, "split": "train", "loss": 0.5}
        >>> straight = Evidence([row], [(1, {"params/w": "ab"})], {}, {})
        >>> other = Evidence([row | {"loss": 0.6}], [(1, {"params/w": "cd"})], {}, {})
        >>> print(first_difference(straight, other))
        from step 1 on: loss of the train row is 0.5, and 0.6; the first leaf is 'params/w', seen at
        step 1
    """
    found = [_of_rows(straight.rows, other.rows), *_of_leaves(straight.traces, other.traces)]
    found = [each for each in found if each is not None]
    if not found:
        return _of_facts(straight, other)
    first = min(found, key=lambda each: each.step)
    with_leaf = next((each for each in found if each.leaf is not None), first)
    return Difference(first.step, first.what, with_leaf.leaf, with_leaf.leaf_step)


def _of_rows(straight: list[dict[str, Any]], other: list[dict[str, Any]]) -> Difference | None:
    for index in range(max(len(straight), len(other))):
        here = straight[index] if index < len(straight) else None
        there = other[index] if index < len(other) else None
        if here == there:
            continue
        named = [(row["step"], row["split"]) if row else None for row in (here, there)]
        if here is None or there is None or named[0] != named[1]:
            step, split = min(name for name in named if name)
            fault = "missing" if (step, split) == named[0] else "one too many"
            return Difference(step, f"a {split} row is {fault}", None, None)
        name = next(name for name in {**here, **there} if here.get(name) != there.get(name))
        what = f"{name} of the {here['split']} row is {here.get(name)}, and {there.get(name)}"
        return Difference(here["step"], what, None, None)
    return None


def _of_leaves(
    straight: list[tuple[int, dict[str, str]]], other: list[tuple[int, dict[str, str]]]
) -> list[Difference]:
    """The first pause at which a leaf differs, if there is one."""
    known: dict[int, dict[str, str]] = {}
    for step, leaves in straight:
        known[step] = known.get(step, {}) | leaves
    for step, leaves in sorted(other, key=lambda each: each[0]):
        before: Mapping[str, str] = known.get(step, {})
        for name in leaves if before else ():
            if leaves[name] != before.get(name):
                return [Difference(step, "the state", name, step)]
    return []


def _of_facts(straight: Evidence, other: Evidence) -> Difference | None:
    step = straight.traces[-1][0]
    for name in {**straight.facts, **other.facts}:
        here, there = straight.facts.get(name), other.facts.get(name)
        if here != there:
            return Difference(step, f"{name} is {here}, and {there}", None, None)
    return None
