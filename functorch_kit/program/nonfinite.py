"""Where NaN and Inf come from: an eager run of a function, followed back from its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from functorch_kit.program.calls import called
from functorch_kit.program.directions import Directions
from functorch_kit.program.eager_run import Event, Frame, Value, run
from functorch_kit.program.finding import Finding, finding_of
from functorch_kit.program.specs import argument_names, leaf_names

_PASSES = ("forward", "backward", "update")
# What passes elements on as they are: an Inf that only went through these was meant.
_MOVES = {
    "broadcast_in_dim", "clamp", "concatenate", "convert_element_type", "copy", "copy_p",
    "cummax", "cummin", "device_put", "dynamic_slice", "dynamic_update_slice", "expand_dims",
    "gather", "max", "min", "name", "neg", "optimization_barrier", "pad", "real", "reduce_max",
    "reduce_min", "reduce_precision", "reduce_window_max", "reduce_window_min", "reshape", "rev",
    "scatter", "select_n", "sharding_constraint", "slice", "sort", "split", "squeeze",
    "stop_gradient", "transpose",
}  # fmt: skip


def first_nonfinite(fn: Callable[..., Any], *args: Any, tested: bool = False) -> Finding | None:
    """Run a function eagerly, and name the operation that its first NaN or Inf came from.

    The function runs equation by equation, with every intermediate value kept. If its output holds
    NaN or Inf, these are followed back, through calls and into the iterations of loops, to the
    earliest operation that made one: a NaN where nothing it read had any, or an Inf out of
    finite numbers. So a mask of -inf which a softmax turns into zeros is no finding, nor is an Inf
    that came in, or stands in the function as a constant, and leaves as it was.

    Compiled programs fuse operations and may round otherwise: an overflow just at the limit
    of a dtype can happen in one of them and not in the other.

    Args:
        fn: a pure function that JAX can trace.
        *args: its arguments, pytrees of arrays.
        tested: where the output is finite, follow what ``fn`` itself hands to ``jnp.isfinite``: a
            step that refuses an update which is not finite has a finite output.

    Returns:
        A Finding; None if all is finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def net(x):
        ...     with jax.named_scope("norm"):
        ...         return x / jnp.sqrt(jnp.sum(x * x))
        >>> print(first_nonfinite(net, jnp.zeros(2)))
        norm, forward: div (...)
          output float32[2]: 2 NaN, 0 +Inf, 0 -Inf, nothing else, first at [0]
          x float32[2]: from 0 to 0
          input 1 float32[]: from 0 to 0
          first seen in the output
    """
    jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    names = argument_names(fn, len(args))
    arguments = [
        # As JAX would take it: a NumPy array in float64 may become float32.
        Value(_as_array(leaf), argument=name)
        for argument, tree in zip(names, args, strict=True)
        for name, leaf in leaf_names(argument, tree)
    ]
    with jax.debug_nans(False), jax.debug_infs(False):
        frame, given = _opened(Frame(jaxpr), arguments)
        outputs = [name or "the output" for name, _ in leaf_names("", shape)]
        ends = list(zip(outputs, run(frame, given), strict=True))
        origin = _origin([value for _, value in ends], arguments)
        if origin is None and tested:
            ends = [("a test of isfinite", value) for value in frame.tested]
            origin = _origin(frame.tested, arguments)
        if origin is None:
            return None
        return finding_of(origin, _reached(origin, ends))


def _opened(frame: Frame, arguments: list[Value]) -> tuple[Frame, list[Value]]:
    """Of a function that is one jitted call, the inside."""
    jaxpr = frame.jaxpr.jaxpr
    if len(jaxpr.eqns) != 1 or jaxpr.constvars or jaxpr.eqns[0].outvars != jaxpr.outvars:
        return frame, arguments
    (eqn,) = jaxpr.eqns
    body, known = called(eqn), dict(zip(jaxpr.invars, arguments, strict=True))
    if body is None or not all(isinstance(atom, Var) for atom in eqn.invars):
        return frame, arguments
    return _opened(Frame(body), [known[atom] for atom in eqn.invars])


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def _origin(ends: list[Value], arguments: list[Value]) -> Value | None:
    """The value that came first of all those from which non-finite ends stem."""
    search = _Search(ends)
    came_in = [value for value in arguments if value in search.arguments]
    if nan := [value for value in came_in if value.has_nan]:
        return nan[0]
    # An Inf that came in may be meant, such as a mask; one that was made out of numbers is not.
    if search.makers and (search.makes_inf or not came_in):
        directions = Directions()
        return min(search.makers, key=lambda value: _order(value, directions))
    return came_in[0] if came_in else None


def _reached(origin: Value, ends: list[tuple[str, Value]]) -> str | None:
    """The first of the function's outputs that the origin spoiled."""
    for name, value in ends:
        search = _Search([value])
        if origin in search.makers or origin in search.arguments:
            return name
    return None


def _order(value: Value, directions: Directions) -> tuple[Any, ...]:
    """By pass, then by execution: factors of derivatives are computed on the way forward."""
    assert value.event is not None
    return _PASSES.index(directions.of(value.event)), value.event.key


def _is_meant(value: Value) -> bool:
    """Whether a value is an Inf or NaN that someone wrote down, or an Inf made of constants."""
    if not value.is_constant:
        return False
    while value.has_nan:
        source = value.whole
        if source is None:
            if value.event is None:
                return True
            source = next((each for each in value.event.inputs if each.has_nan), None)
            if source is None:
                return False
        value = source
    return True


class _Search:
    """From values to what made them non-finite, back to where that began."""

    def __init__(self, ends: list[Value]) -> None:
        self.makers: list[Value] = []
        self.arguments: set[Value] = set()
        self.makes_inf = False
        self._seen: set[tuple[Value, bool]] = set()
        self._open: list[tuple[Value, bool]] = []
        for value in ends:
            if value.has_nan or value.has_inf:
                self.add(value, untouched=True)
        self._run()

    def add(self, value: Value, *, untouched: bool) -> bool:
        """Follow a value; ``untouched`` if an output is this value, only moved."""
        if _is_meant(value):
            return False
        if (value, untouched) not in self._seen:
            self._seen.add((value, untouched))
            self._open.append((value, untouched))
        return True

    def _run(self) -> None:
        while self._open:
            value, untouched = self._open.pop()
            if value.whole is not None:
                self.add(value.whole, untouched=untouched)
            elif value.event is None:
                if value.has_nan or not untouched:
                    self.arguments.add(value)
            elif not self._inside(value, value.event, untouched):
                follow = self._nan if value.has_nan else self._inf
                follow(value, value.event, untouched)

    def _inside(self, value: Value, event: Event, untouched: bool) -> bool:
        """Go on inside a call or a loop, if what is wrong shows there as well."""
        if event.is_loop or event.carry:
            # A loop that was handed a NaN is not taken apart: the NaN is older.
            came_in = value.has_nan and any(v.has_nan and not _is_meant(v) for v in event.inputs)
            if came_in:
                return False
        if event.parts is None:
            return False
        index = next(i for i, output in enumerate(event.outputs) if output is value)
        parts = event.parts[index]
        bad = [part for part in parts if (part.has_nan if value.has_nan else part.has_inf)]
        for part in bad:
            self.add(part, untouched=untouched)
        return bool(bad)

    def _nan(self, value: Value, event: Event, untouched: bool) -> None:
        nan = [self.add(v, untouched=False) for v in event.inputs if v.has_nan]
        if any(nan):
            return
        self.makers.append(value)  # out of Inf, or chosen from constants, or out of numbers
        for each in event.inputs:
            if each.has_inf:
                self.add(each, untouched=False)

    def _inf(self, value: Value, event: Event, untouched: bool) -> None:
        moved = event.eqn.primitive.name in _MOVES
        infinite = [each for each in event.inputs if each.has_inf]
        followed = [self.add(each, untouched=untouched and moved) for each in infinite]
        if not infinite:
            self.makes_inf = True
        if not infinite or not (any(followed) or moved):
            self.makers.append(value)
