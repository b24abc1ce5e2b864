"""The ways to run one function, put together from switches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.program.carrying import Arguments, Threading, as_written
from functorch_kit.program.compile_report import memory_of
from functorch_kit.program.executable import Program, compile
from functorch_kit.program.placed_batch import BatchPlacement
from functorch_kit.program.specs import to_spec
from functorch_kit.program.switches import Switches
from functorch_kit.types import PyTree


class Variant:
    """One way to run a function, of which each class is one.

    Args:
        fn: the function, not jitted.
        threading: what is carried from call to call.
        switches: how it is run; ``mode`` has chosen the class.
        placement: where its arguments are put.

    Example:
        >>> eager = make_variant(Switches("eager"), jnp.sin, Threading(None))
        >>> float(eager.run((0.0,), steps=3))
        0.0
    """

    is_compiled = True

    def __init__(
        self,
        fn: Callable[..., Any],
        threading: Threading,
        switches: Switches,
        placement: BatchPlacement | None,
    ) -> None:
        self.fn = fn
        self.threading = threading
        self.placement = placement
        self.length = switches.length
        self.unroll = switches.unroll
        self.donate = (threading.carry,) if switches.donate and threading.carry is not None else ()
        self.steps_per_call = 1
        # Calls that do not depend on each other would run at the same time. Collectives of two
        # calls in flight may wait for the threads of each other on a CPU, and then for ever.
        self.one_at_a_time = threading.carry is None or (
            placement is not None and jax.default_backend() == "cpu"
        )
        self.call: Callable[[Arguments], Any] = lambda args: fn(*args)

    def build(self, args: Arguments) -> None:
        """Do what this variant does before its first call; sets ``call``."""

    def prepare(self, args: Arguments) -> Arguments:
        """Turn the function's arguments into those of ``call``; outside the timing."""
        return args if self.placement is None else self.placement.place(args)

    def advance(self, args: Arguments, output: Any) -> Arguments:
        """The next call's arguments, from this call's and its output."""
        return self.threading.advance(args, output)

    def wait(self, output: Any) -> Any:
        """Return when the output is there: JAX returns before the work is done."""
        return jax.block_until_ready(output)

    def run(self, args: Arguments, steps: int) -> PyTree:
        """What the function returns at the last of ``steps`` steps, from prepared arguments."""
        # Without a carry every call is the same: one is as good as many.
        for _ in range(steps if self.threading.carry is not None else 1):
            output = self.call(args)
            if self.one_at_a_time:
                self.wait(output)
            args = self.advance(args, output)
        return output  # pyright: ignore[reportPossiblyUnboundVariable]

    def result(self, output: PyTree) -> PyTree:
        """What the function returned at the last step of a call, from the call's output."""
        return output

    def peak_bytes(self, args: Arguments) -> int | None:
        """The most memory in use during a call, as the compiled program states it."""
        return None


class AsGiven(Variant):
    """The callable itself, with whatever it was compiled to and has captured."""


class Eager(Variant):
    """The function as it is written, JAX dispatching operation by operation."""

    is_compiled = False


class DisableJit(Eager):
    """Under ``jax.disable_jit``: even JAX's own functions run as Python."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        def call(args: Arguments) -> Any:
            with jax.disable_jit():
                return self.fn(*args)

        self.call = call


class Jit(Variant):
    """``jax.jit``, which compiles at the first call."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        self._jitted = jitted = jax.jit(_fresh(self.fn), donate_argnums=self.donate)
        self.call = lambda args: jitted(*args)

    def peak_bytes(self, args: Arguments) -> int | None:  # noqa: D102
        specs = tuple(map(_placed_spec, args))
        # JAX remembers what the first call compiled: nothing is compiled again.
        return memory_of(self._jitted.lower(*specs).compile(), specs).peak


class AheadOfTime(Variant):
    """A ``Program``, compiled from shapes before the first call."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        self._program = program = self._compiled(self.fn, args, "aot")
        self.call = lambda args: program(*args)

    def _compiled(self, fn: Callable[..., Any], args: Arguments, name: str) -> Program:
        specs = tuple(map(_placed_spec, args))
        # What it captures is the caller's affair here: the other variants take it, too.
        return compile(_fresh(fn), *specs, name=name, donate=self.donate, captured_bytes=None)

    def peak_bytes(self, args: Arguments) -> int | None:  # noqa: D102
        return self._program.report.peak_bytes


class CarryScan(AheadOfTime):
    """One program of ``length`` steps, each from the carry of the one before."""

    def build(self, args: Arguments) -> None:  # noqa: D102
        self.steps_per_call = self.length
        self._program = program = self._loop(self.length, args)
        self.call = lambda args: program(*args)

    def _loop(self, length: int, args: Arguments) -> Program:
        carry = self.threading.carry
        assert carry is not None

        def scanned(*args: PyTree) -> tuple[PyTree, PyTree]:
            def step(value: PyTree, _: None) -> tuple[PyTree, PyTree]:
                now = self.threading.replace(args, value)
                return self.threading.split(now, self.fn(*now))

            return jax.lax.scan(step, args[carry], None, length=length, unroll=self.unroll)

        return self._compiled(scanned, args, f"scan of {length}")

    def advance(self, args: Arguments, output: Any) -> Arguments:  # noqa: D102
        return self.threading.replace(args, output[0])

    def run(self, args: Arguments, steps: int) -> PyTree:  # noqa: D102
        whole, left = divmod(steps, self.length)
        calls = [self.call] * whole
        if left:
            rest = self._loop(left, args)
            calls.append(lambda args: rest(*args))
        for call in calls:
            output = self.wait(call(args)) if self.one_at_a_time else call(args)
            args = self.advance(args, output)
        return self.result(output)  # pyright: ignore[reportPossiblyUnboundVariable]

    def result(self, output: PyTree) -> PyTree:  # noqa: D102
        value, others = output
        return (value, *jax.tree.map(_last, others)) if others else value


class MapScan(AheadOfTime):
    """One program of ``length`` independent steps, each on a copy of the arguments of its own.

    On one and the same copy XLA would do the work once, in front of the loop.
    """

    def build(self, args: Arguments) -> None:  # noqa: D102
        self.steps_per_call = self.length
        (arrays,) = args
        assert self._structure is not None

        def step(_: None, arrays: list[jax.Array]) -> tuple[None, PyTree]:
            given = iter(arrays)
            whole = [leaf if _is_number(leaf) else next(given) for leaf in self._leaves]
            return None, self.fn(*jax.tree.unflatten(self._structure, whole))

        self._program = program = self._compiled(
            lambda stacked: jax.lax.scan(step, None, stacked, unroll=self.unroll)[1],
            (arrays,),
            f"scan of {self.length}",
        )
        self.call = lambda args: program(*args)

    def prepare(self, args: Arguments) -> Arguments:  # noqa: D102
        self._leaves, self._structure = jax.tree.flatten(args)
        # A Python number stays one: as an array it would promote other dtypes.
        arrays = [leaf for leaf in self._leaves if not _is_number(leaf)]
        return ([jnp.stack([leaf] * self.length) for leaf in arrays],)

    def run(self, args: Arguments, steps: int) -> PyTree:  # noqa: D102
        return self.result(self.call(args))

    def result(self, output: PyTree) -> PyTree:  # noqa: D102
        return jax.tree.map(_last, output)


_CLASSES: dict[str, type[Variant]] = {
    "as_given": AsGiven,
    "eager": Eager,
    "disable_jit": DisableJit,
    "jit": Jit,
    "aot": AheadOfTime,
    "scan": CarryScan,
}


def make_variant(
    switches: Switches,
    fn: Callable[..., Any],
    threading: Threading,
    placement: BatchPlacement | None = None,
) -> Variant:
    """A variant, not built yet.

    Args:
        switches: how the function is run.
        fn: the function; whatever was compiled of it is left aside, unless it runs ``as_given``.
        threading: what is carried from call to call.
        placement: of a sharded variant: where its arguments are put.

    Example:
        >>> type(make_variant(Switches("scan"), jnp.sin, Threading(None))).__name__
        'MapScan'
    """
    kind = _CLASSES[switches.mode]
    if kind is AsGiven:
        return kind(fn, threading, switches, placement)
    fn = as_written(fn)
    if switches.vmap:
        fn = of_one(fn)
    if placement is not None:
        fn = placement.pinned(fn, threading)
    if kind is CarryScan and threading.carry is None:
        kind = MapScan
    return kind(fn, threading, switches, placement)


def of_one(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function mapped over an axis of one, which is added and taken away again.

    Example:
        >>> of_one(lambda x, scale: x * scale)(jnp.ones(2), 3.0).tolist()
        [3.0, 3.0]
    """

    @functools.wraps(fn)
    def mapped(*args: PyTree) -> PyTree:
        # A Python number stays one: as an array it would promote other dtypes.
        leaves, structure = jax.tree.flatten(args)
        axes = [None if _is_number(leaf) else 0 for leaf in leaves]
        lifted = [leaf if _is_number(leaf) else jnp.asarray(leaf)[None] for leaf in leaves]

        def whole(*leaves: Any) -> PyTree:
            return fn(*jax.tree.unflatten(structure, leaves))

        return jax.tree.map(lambda leaf: leaf[0], jax.vmap(whole, in_axes=tuple(axes))(*lifted))

    return mapped


def _fresh(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own: JAX would find an earlier compilation of ``fn`` in its memory."""

    @functools.wraps(fn)
    def fresh(*args: Any) -> Any:
        return fn(*args)

    return fresh


def _placed_spec(arg: PyTree) -> PyTree:
    """Specs that hold where committed arrays lie, so that they are compiled for there."""

    def spec(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.committed:
            aval = to_spec(leaf)
            return jax.ShapeDtypeStruct(
                aval.shape, aval.dtype, weak_type=aval.weak_type, sharding=leaf.sharding
            )
        return to_spec(leaf)

    return jax.tree.map(spec, arg)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex)


def _last(leaf: jax.Array) -> jax.Array:
    return leaf[-1]
