"""One variant of a comparison while it runs: warmed up, sampled, its failure kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit.program.cache import compiling_into, watch_compilations
from functorch_kit.program.carrying import Arguments
from functorch_kit.program.device_memory import memory_in_use, new_peak
from functorch_kit.program.difference import NamedLeaves, to_host
from functorch_kit.program.specs import leaf_names
from functorch_kit.program.timing import calls_per_sample
from functorch_kit.program.variants import Variant
from functorch_kit.types import PyTree

_SAMPLE_SECONDS = 0.1
_LONE_CALLS = 5
_NUMBERS = (bool, int, float, complex, str, bytes, np.ndarray, np.generic)


class Contestant:
    """A variant and what has been measured of it so far.

    Args:
        name: the variant's name.
        variant: how it runs the function.
        args: the function's arguments, on the device; they outlive all calls.
        cache: ``cold`` or ``warm``, see ``Switches``.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.program.carrying import Threading
        >>> from functorch_kit.program.switches import Switches
        >>> from functorch_kit.program.variants import make_variant
        >>> eager = make_variant(Switches("eager"), jnp.sin, Threading(None))
        >>> contestant = Contestant("eager", eager, ("text",))
        >>> contestant.attempt(lambda each: each.warm_up())
        >>> contestant.error.partition(":")[0]
        'TypeError'
    """

    def __init__(
        self, name: str, variant: Variant, args: Arguments, cache: str | None = None
    ) -> None:
        self.name = name
        self.variant = variant
        self.args = args
        self.cache = cache
        self.error: str | None = None
        self.compile_seconds: float | None = None
        self.first_call_seconds: float | None = None
        self.peak_bytes: int | None = None
        self.measured_bytes: int | None = None
        self.first: PyTree = None  # what the first call returned; let go of once it is compared
        self.calls_per_sample = 1
        self.calls = 0
        self.spent = 0.0
        self.samples: list[float] = []
        self.lone_calls: list[tuple[float, float]] = []
        self.not_waited: str | None = None

    def attempt(self, action: Callable[[Contestant], None]) -> None:
        """Do it, unless an earlier action failed; remember why it failed."""
        if self.error is not None:
            return
        try:
            action(self)
        except Exception as error:  # whatever the user's function raises becomes a row
            self.error = one_line(error)

    def warm_up(self) -> None:
        """Build it, call it once, keep what that call returned, and size the samples."""
        with _cache(self.cache, self._first_call):
            self._first_call()
        self.peak_bytes = self.variant.peak_bytes(self.fresh())
        began = self._timed(1)
        if began < _SAMPLE_SECONDS:
            # The first estimate holds the cost of waiting, which many calls in a row share.
            calls = calls_per_sample(began, _SAMPLE_SECONDS)
            self.calls_per_sample = calls_per_sample(self._timed(calls) / calls, _SAMPLE_SECONDS)
        else:
            self._keep(began)

    def _first_call(self) -> None:
        before = memory_in_use()
        with watch_compilations() as seen:
            prepared = self.fresh()
            self.variant.build(prepared)
            began = time.perf_counter()
            output = self.variant.wait(self.variant.call(prepared))
            self.first_call_seconds = time.perf_counter() - began
        self.compile_seconds = seen.seconds
        self.measured_bytes = new_peak(before)
        self.first = self.variant.result(output)

    def steps_within(self, steps: int, seconds: float) -> int:
        """After how many steps its result can be had: all of them, or those of the first call."""
        one = self.variant.steps_per_call
        if self.variant.threading.carry is None or steps == one:
            return steps
        took = self.samples[0] if self.samples else 0.0
        return steps if took * steps <= seconds else one

    def after(self, steps: int, args: Arguments | None = None) -> PyTree:
        """What the function returns at the last of ``steps`` steps."""
        same = self.variant.threading.carry is None or steps == self.variant.steps_per_call
        if same and args is None and self.first is not None:
            return self.first
        return self.variant.run(self.fresh(args), steps)

    def sample(self) -> None:
        """Time one sample: so many calls that the clock does not matter."""
        if self.calls_per_sample > 1:
            # Another variant was here before: caches and threads have to find their way back.
            self._timed(max(2, self.calls_per_sample // 10))
        self._keep(self._timed(self.calls_per_sample))
        for _ in range(_LONE_CALLS if self.calls_per_sample > 1 else 0):
            self._timed(1)

    def _keep(self, took: float) -> None:
        steps = self.calls_per_sample * self.variant.steps_per_call
        self.samples.append(took / steps)
        self.calls += steps
        self.spent += took

    def _timed(self, calls: int) -> float:
        variant, carried = self.variant, self.variant.threading.carry is not None
        now = self.fresh()
        output = None
        began = returned = time.perf_counter()
        for index in range(calls):
            output = variant.call(now)
            if not index:
                returned = time.perf_counter()
            if variant.one_at_a_time:
                variant.wait(output)
            if carried:
                now = variant.advance(now, output)
        variant.wait(output)
        took = time.perf_counter() - began
        self.not_waited = self.not_waited or _unready(output)
        if calls == 1:
            self.lone_calls.append((returned - began, took))
        return took

    def fresh(self, args: Arguments | None = None) -> Arguments:
        """Copies, ready: a function that donates destroys them, not the caller's."""
        return jax.block_until_ready(
            self.variant.prepare(_copy(self.args if args is None else args))
        )

    def named(self, output: PyTree, names: tuple[str, ...]) -> NamedLeaves:
        """What the function returned, on the host, leaf by leaf; the carry by its argument."""
        carry = self.variant.threading.carry
        if carry is None:
            return to_host(leaf_names("output", output))
        value, rest = self.variant.threading.split(self.args, output)
        others = [
            leaf
            for position, item in enumerate(rest, start=1)
            for leaf in leaf_names(f"output/{position}", item)
        ]
        return to_host(leaf_names(names[carry], value) + others)


def one_line(error: Exception) -> str:
    r"""An exception's type and the first line of its message.

    Example:
        >>> one_line(ValueError("no such thing\nand more"))
        'ValueError: no such thing'
    """
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


@contextmanager
def _cache(kind: str | None, fill: Callable[[], None]) -> Iterator[None]:
    """The compilation cache that a first call meets: none, an empty one, one that holds it."""
    if kind is None:
        with compiling_into(None):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="compare-") as folder, compiling_into(Path(folder)):
        if kind == "warm":
            fill()
        yield


def _unready(output: Any) -> str | None:
    """Why a timing that has just ended cannot be believed; None if everything has come."""
    for name, leaf in leaf_names("output", output):
        if isinstance(leaf, jax.Array):
            # Arrays of typed keys cannot be asked.
            is_ready = getattr(leaf, "is_ready", lambda: True)
            if not leaf.is_deleted() and not is_ready():
                return f"the clock was stopped before {name} was there: it is not waited for"
        elif not isinstance(leaf, _NUMBERS) and not hasattr(leaf, "block_until_ready"):
            kind = type(leaf).__name__
            return f"{name} is a {kind}, which cannot be waited for: return arrays"
    return None


def _copy(args: Arguments) -> Arguments:
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else leaf, args)
