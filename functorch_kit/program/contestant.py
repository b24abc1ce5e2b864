"""One variant of a comparison while it runs: warmed up, sampled, its failure kept."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax

from functorch_kit.program.cache import watch_compilations
from functorch_kit.program.difference import NamedLeaves, to_host
from functorch_kit.program.specs import leaf_names
from functorch_kit.program.timing import calls_per_sample
from functorch_kit.program.variants import Arguments, Variant
from functorch_kit.types import PyTree

_SAMPLE_SECONDS = 0.02


class Contestant:
    """A variant and what has been measured of it so far.

    Args:
        name: the variant's name.
        variant: how it runs the function.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.program.variants import Threading, Variant
        >>> eager = Contestant("eager", Variant(jnp.sin, Threading(None), 1))
        >>> eager.attempt(lambda each: each.warm_up(("text",), 1, ("x",)))
        >>> eager.error.partition(":")[0]
        'TypeError'
    """

    def __init__(self, name: str, variant: Variant) -> None:
        self.name = name
        self.variant = variant
        self.error: str | None = None
        self.compile_seconds: float | None = None
        self.first_call_seconds: float | None = None
        self.result: NamedLeaves = {}
        self.calls_per_sample = 1
        self.calls = 0
        self.spent = 0.0
        self.samples: list[float] = []

    def attempt(self, action: Callable[[Contestant], None]) -> None:
        """Do it, unless an earlier action failed; remember why it failed."""
        if self.error is not None:
            return
        try:
            action(self)
        except Exception as error:  # whatever the user's function raises becomes a row
            self.error = one_line(error)

    def warm_up(self, args: Arguments, steps: int, names: tuple[str, ...]) -> None:
        """Build it, call it once, keep its result after ``steps`` steps, and size the samples."""
        with watch_compilations() as seen:
            self.variant.build(args)
            prepared = self._fresh(args)
            began = time.perf_counter()
            jax.block_until_ready(self.variant.call(prepared))
            self.first_call_seconds = time.perf_counter() - began
        self.compile_seconds = seen.seconds
        self.result = self._named(args, self.variant.run(_copy(args), steps), names)
        calls = calls_per_sample(self._timed(args, 1), _SAMPLE_SECONDS)
        # The first estimate holds the cost of waiting, which many calls in a row share.
        self.calls_per_sample = calls_per_sample(self._timed(args, calls) / calls, _SAMPLE_SECONDS)

    def sample(self, args: Arguments) -> None:
        """Time one sample: so many calls that the clock does not matter."""
        took = self._timed(args, self.calls_per_sample)
        steps = self.calls_per_sample * self.variant.steps_per_call
        self.samples.append(took / steps)
        self.calls += steps
        self.spent += took

    def _timed(self, args: Arguments, calls: int) -> float:
        variant, carried = self.variant, self.variant.threading.carry is not None
        now = self._fresh(args)
        began = time.perf_counter()
        for _ in range(calls):
            output = variant.call(now)
            if carried:
                now = variant.advance(now, output)
            else:
                # Calls that do not depend on each other would run at the same time.
                jax.block_until_ready(output)
        jax.block_until_ready(output)  # pyright: ignore[reportPossiblyUnboundVariable]
        return time.perf_counter() - began

    def _fresh(self, args: Arguments) -> Arguments:
        """Copies, ready: a function that donates destroys them, not the caller's."""
        return jax.block_until_ready(self.variant.prepare(_copy(args)))

    def _named(self, args: Arguments, output: PyTree, names: tuple[str, ...]) -> NamedLeaves:
        carry = self.variant.threading.carry
        if carry is None:
            return to_host(leaf_names("output", output))
        value, rest = self.variant.threading.split(args, output)
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


def _copy(args: Arguments) -> Arguments:
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else leaf, args)
