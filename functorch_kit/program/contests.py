"""A comparison while it runs: who takes part, and what each result is held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from functorch_kit.program.carrying import Arguments, Threading, as_written
from functorch_kit.program.case import Case, coarsest
from functorch_kit.program.contestant import Contestant
from functorch_kit.program.difference import Difference, NamedLeaves, differences
from functorch_kit.program.placed_batch import BatchPlacement
from functorch_kit.program.specs import argument_names
from functorch_kit.program.switches import ComparisonError, Switches, read_switches
from functorch_kit.program.variants import make_variant
from functorch_kit.program.verdicts import Verdict, diverging_layer, judge, moved_by_rounding
from functorch_kit.types import path_matches


@dataclasses.dataclass(eq=False)
class Entry:
    """One participant.

    Attributes:
        case: what was asked for.
        switches: how it is executed.
        contestant: what runs, and what was measured.
        dtype: of its arithmetic.
        against: the participant that it is compared with; None before that is known.
        steps: after how many steps its result is compared.
        found: leaf -> difference from ``against``.
    """

    case: Case
    switches: Switches
    contestant: Contestant
    dtype: str
    against: Entry | None = None
    steps: int = 1
    found: dict[str, Difference] = dataclasses.field(default_factory=dict)


class Contest:
    """All participants of one comparison.

    Args:
        fn: the function, as it was given.
        args: its arguments, on the device.
        carry: see ``compare``, as the other arguments are.
        batch: likewise.
        steps: likewise.
        scan_length: likewise.
        seconds: likewise.
        tolerance: likewise.

    Attributes:
        entries: the rows.
        reference: the first of them that ran.
        rounding: dtype -> by how much one rounding of the arguments to it moves the result.

    Example:
        >>> import jax.numpy as jnp
        >>> contest = Contest(jnp.sin, (jnp.ones(2),))
        >>> contest.enter(Case("eager", how="eager"))
        >>> contest.warm_up()
        >>> contest.reference.case.name, contest.verdict(contest.entries[0]).agrees
        ('eager', True)
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        args: Arguments,
        *,
        carry: int | None = None,
        batch: int | None = None,
        steps: int = 10,
        scan_length: int = 10,
        seconds: float = 10.0,
        tolerance: float | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.carry = carry
        self.batch = batch
        self.steps = steps
        self.scan_length = scan_length
        self.seconds = seconds
        self.tolerance = tolerance
        self.names = argument_names(as_written(fn), len(args))
        self.entries: list[Entry] = []
        self.reference: Entry | None = None
        self.rounding: dict[str, float] = {}
        self._apart: dict[int, Entry] = {}
        self._results: dict[tuple[int, int], NamedLeaves] = {}
        self._moved: dict[tuple[int, int, str], dict[str, float]] = {}

    def enter(self, case: Case) -> None:
        """Add a row.

        Raises:
            ComparisonError: its words cannot be understood, or cannot be had here.
        """
        self.entries.append(self._entry(case))

    def _entry(self, case: Case) -> Entry:
        switches = read_switches(case.how, scan_length=self.scan_length)
        if switches.donate and self.carry is None:
            raise ComparisonError(
                f"variants: {case.name!r} donates, but nothing is carried: give carry="
            )
        fn = self.fn if case.fn is None else case.fn
        args = self.args if case.args is None else jax.tree.map(on_device, case.args)
        placement = None
        if switches.devices is not None:
            if self.batch is None:
                raise ComparisonError(
                    f"variants: {case.name!r} splits a batch: say with batch= which argument it is"
                )
            if switches.mode == "scan" and self.carry is None:
                raise ComparisonError(
                    f"variants: {case.name!r}: a scan without a carry cannot be sharded"
                )
            placement = BatchPlacement(switches.devices, self.batch)
            placement.check(as_written(fn), args)
        variant = make_variant(switches, fn, Threading(self.carry), placement)
        contestant = Contestant(case.name, variant, args, switches.cache)
        return Entry(case, switches, contestant, case.dtype or coarsest(args))

    def warm_up(self, progress: Callable[[str], object] = lambda line: None) -> None:
        """Call every participant for the first time, and compare what it returns."""
        for number, entry in enumerate(self.entries, 1):
            progress(f"{entry.case.name}: first steps ({number} of {len(self.entries)})")
            entry.contestant.attempt(Contestant.warm_up)
            if entry.contestant.error is None and self.reference is None:
                self.reference = entry
            entry.contestant.attempt(lambda _, entry=entry: self._compare(entry))
            if entry is not self.reference:
                entry.contestant.first = None

    def _compare(self, entry: Entry) -> None:
        against = self._against(entry)
        if against.contestant.error is not None:
            raise ValueError(f"its reference {against.case.name!r} {against.contestant.error}")
        entry.against = against
        entry.steps = entry.contestant.steps_within(self.steps, self.seconds)
        if against is entry:
            return
        entry.found = differences(
            _kept(self._result(against, entry.steps), entry.case.ignore),
            _kept(self._result(entry, entry.steps, keep=False), entry.case.ignore),
        )

    def _against(self, entry: Entry) -> Entry:
        case = entry.case.reference
        if case is None:
            assert self.reference is not None
            return self.reference
        if id(case) not in self._apart:
            apart = self._entry(case)
            apart.contestant.attempt(Contestant.warm_up)
            self._apart[id(case)] = apart
        return self._apart[id(case)]

    def _result(self, entry: Entry, steps: int, *, keep: bool = True) -> NamedLeaves:
        known = self._results.get((id(entry), steps))
        if known is None:
            contestant = entry.contestant
            known = contestant.named(contestant.after(steps), self.names)
            if keep:
                self._results[id(entry), steps] = known
        return known

    def verdict(self, entry: Entry) -> Verdict:
        """Whether the result of a participant is that of what it is compared with."""
        tolerance = self.tolerance if entry.case.tolerance is None else entry.case.tolerance
        moved = {} if tolerance is not None or entry.against is entry else self._moved_by(entry)
        return judge(entry.found, entry.dtype, tolerance, moved)

    def diverges_at(self, entry: Entry, tolerance: float) -> tuple[str, int] | None:
        """The first part whose output is another, and at which step; None if none is seen."""
        assert entry.against is not None
        try:
            return diverging_layer(
                entry.against.contestant, entry.contestant, entry.steps, tolerance
            )
        except Exception:  # a function that cannot be traced shows no parts
            return None

    def _moved_by(self, entry: Entry) -> dict[str, float]:
        against = entry.against
        assert against is not None
        runner = against if self._is_plain(against) else self._plain_of(against)
        key = id(runner), entry.steps, entry.dtype
        if key not in self._moved:
            moved = moved_by_rounding(
                runner.contestant,
                self._result(runner, entry.steps),
                lambda output: runner.contestant.named(output, self.names),
                entry.steps,
                entry.dtype,
            )
            self._moved[key] = moved
            if against is self.reference:
                most = max(moved.values(), default=0.0)
                self.rounding[entry.dtype] = max(most, self.rounding.get(entry.dtype, 0.0))
        return self._moved[key]

    def _is_plain(self, entry: Entry) -> bool:
        switches = entry.switches
        return switches == Switches(switches.mode, switches.length) and switches.mode in (
            "jit",
            "aot",
        )

    def _plain_of(self, against: Entry) -> Entry:
        """A compiled participant that runs the same function on the same arguments, if any."""
        for entry in self.entries:
            same = entry.case.fn is against.case.fn and entry.case.args is against.case.args
            if same and self._is_plain(entry) and entry.contestant.error is None:
                return entry
        return against


def on_device(leaf: Any) -> Any:
    """NumPy arrays go to the device once, not at every timed call; numbers stay numbers.

    Example:
        >>> on_device(2.0)
        2.0
    """
    return jax.device_put(leaf) if hasattr(leaf, "dtype") else leaf


def _kept(leaves: NamedLeaves, ignore: tuple[str, ...]) -> NamedLeaves:
    return {
        name: leaf
        for name, leaf in leaves.items()
        if not any(path_matches(pattern, name) for pattern in ignore)
    }
