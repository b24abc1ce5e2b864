"""What devices send each other in a compiled program, read from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from functorch_kit.program.hlo import Module, hlo_text, read_module

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
_AXIS = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{")


class Collective(NamedTuple):
    """One kind of exchange among groups of one size.

    Attributes:
        kind: of ``KINDS``.
        group: devices that take part in one exchange.
        times: how often a step does it.
        size: bytes of all their results on one device.
    """

    kind: str
    group: int
    times: int
    size: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends on a ring: the least that is possible, by kind."""
        share = (self.group - 1) / max(self.group, 1)
        if self.kind == "all-reduce":
            return 2 * share * self.size
        if self.kind == "reduce-scatter":
            return (self.group - 1) * self.size
        return float(self.size) if self.kind == "collective-permute" else share * self.size


def collectives(compiled: Any) -> list[Collective]:
    """The exchanges of a compiled program, the largest first.

    Loops count as often as they run where XLA knows it; a loop of unknown length, such as that over
    the steps of a chunk, counts once, so that a train step's figures are those of one step.

    Args:
        compiled: a ``Program``, a ``jax.stages.Compiled``, or the text itself.

    Returns:
        One entry for each kind and size of group; none where there is nothing, or no text.

    Example:
        >>> collectives('''HloModule jit_f, is_scheduled=true
        ... ENTRY %main (a: f32[2]) -> f32[2] {
        ...   %a = f32[2]{0} parameter(0)
        ...   ROOT %b = f32[2]{0} all-reduce(%a), replica_groups={{0,1},{2,3}}, to_apply=%add
        ... }''')
        [Collective(kind='all-reduce', group=2, times=1, size=8)]
    """
    text = hlo_text(compiled)
    if not any(kind in text for kind in KINDS):
        return []
    module, groups = read_module(text), _groups(text)
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for name, kind, size, times in _met(module):
        key = kind, groups.get(name, 1)
        if key[1] == 1 and kind != "collective-permute":
            continue  # a group of one exchanges nothing
        count, total = found.get(key, (0, 0))
        found[key] = count + times, total + times * size
    made = [Collective(*key, *value) for key, value in found.items()]
    return sorted(made, key=lambda each: -each.size)


def _met(module: Module) -> Iterator[tuple[str, str, int, int]]:
    """Name, kind, bytes and number of runs of every exchange, from the entry on."""
    called = {name for each in module.instructions.values() for name in each.called}

    def visit(computation: str, times: int) -> Iterator[tuple[str, str, int, int]]:
        for each in module.computations.get(computation, ()):
            kind = each.opcode.removesuffix("-start")
            if kind in KINDS:
                # An asynchronous one gives a tuple of what it reads and what it makes.
                is_pair = each.opcode.endswith("-start") and kind != "all-reduce"
                read = sum(module.instructions[n].size for n in each.operands if is_pair)
                yield each.name, kind, each.size - read, times
            inner = times * (each.trips or 1) if each.opcode == "while" else times
            for name in each.called:
                yield from visit(name, inner)

    for computation in module.computations:
        if computation not in called:
            yield from visit(computation, 1)


def _groups(text: str) -> dict[str, int]:
    """Instruction -> devices in one of its groups."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        if not (name := _NAME.match(line)):
            continue
        if listed := _LISTED.search(line):
            found[name[1]] = len(listed[1].split(","))
        elif counted := _COUNTED.search(line):
            found[name[1]] = int(counted[2])
        elif named := _NAMED.search(line):
            sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
            # An axis, or a part of it, which is written 'axis':(parts before it)size.
            axes = [int(size or sizes[axis]) for axis, size in _AXIS.findall(named[2])]
            found[name[1]] = math.prod(axes)
        elif _PAIRS.search(line):
            found[name[1]] = 2
    return found
