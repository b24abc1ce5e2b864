"""A jaxpr run equation by equation, everything kept: what made each value, and from what.

What an equation holds inside (a call, the iterations of a loop) runs at once, compiled, and is run
again piece by piece only when someone asks for its parts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun

from functorch_kit.program.array_statistics import host_array, is_inexact
from functorch_kit.program.calls import Scan, called, closed, execute, scan_of
from functorch_kit.program.scopes import join, path_of

_ITERATIONS_KEPT = 10_000


@dataclass(frozen=True, eq=False)
class Frame:
    """One execution of a jaxpr.

    Attributes:
        jaxpr: what runs.
        path: the scope that it runs in, iterations of loops included.
        caller: the event that it is the inside of; None for the whole function.
        key: where it stands in the order of execution.
        tested: values that it asks of whether they are finite, once it has run.
    """

    jaxpr: ClosedJaxpr
    path: str = ""
    caller: Event | None = None
    key: tuple[int, ...] = ()
    tested: list[Value] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Value:
    """An array that occurred in the run.

    Attributes:
        array: the array.
        event: what made it; None for an argument, a constant, or a part of another value.
        whole: the value that it is one row of, in a loop over rows.
        argument: its address, if it is a leaf of the function's arguments.
        is_constant: it would be the same for all arguments.
    """

    array: Any
    event: Event | None = None
    whole: Value | None = None
    argument: str | None = None
    is_constant: bool = False

    @functools.cached_property
    def has_nan(self) -> bool:
        """Whether an element is NaN."""
        host = self._host()
        return host is not None and bool(np.isnan(host).any())

    @functools.cached_property
    def has_inf(self) -> bool:
        """Whether an element is +Inf or -Inf."""
        host = self._host()
        return host is not None and not bool((np.isfinite(host) | np.isnan(host)).all())

    def _host(self) -> np.ndarray | None:
        host = host_array(self.array)
        return host if host is not None and is_inexact(host) else None


@dataclass(eq=False)
class Event:
    """One equation that ran, or one iteration of a loop.

    Attributes:
        eqn: the equation.
        frame: where it stands.
        path: the scope of the equation; of an iteration, with its number.
        key: where it stands in the order of execution.
        inputs: what it read.
        outputs: what it made.
        body: what it calls once, if it is a call or an iteration.
        carry: of an iteration: how many of its outputs go to the next one.
    """

    eqn: JaxprEqn
    frame: Frame
    path: str
    key: tuple[int, ...]
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)
    body: ClosedJaxpr | None = None
    carry: int = 0

    @property
    def is_loop(self) -> bool:
        """Whether it is a whole loop."""
        return self.body is None and self.eqn.primitive.name in ("scan", "while")

    @functools.cached_property
    def parts(self) -> list[list[Value]] | None:
        """For each output, the values inside that it consists of; None if there is no inside.

        They were computed again, in smaller pieces, and may differ from the outputs in their last
        bits.
        """
        if self.body is not None:
            frame = Frame(self.body, self.path, self, self.key)
            return [[value] for value in run(frame, self.inputs)]
        if self.eqn.primitive.name == "scan":
            return _scan_parts(self, scan_of(self.eqn))
        if self.eqn.primitive.name == "while":
            return _while_parts(self)
        return None


def run(frame: Frame, arguments: Sequence[Value]) -> list[Value]:
    """Run a jaxpr eagerly.

    Args:
        frame: the jaxpr, and where it stands.
        arguments: a value for each of its arguments.

    Returns:
        A value for each of its outputs; what they came from hangs on them.

    Example:
        >>> import jax
        >>> jaxpr = jax.make_jaxpr(lambda x: 1 / x)(0.0)
        >>> (y,) = run(Frame(jaxpr), [Value(0.0)])
        >>> y.has_inf, y.event.eqn.primitive.name, y.event.inputs[1].array
        (True, 'div', 0.0)
    """
    jaxpr, consts = frame.jaxpr.jaxpr, frame.jaxpr.consts
    known = {
        variable: Value(const, is_constant=True)
        for variable, const in zip(jaxpr.constvars, consts, strict=True)
    }
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Value:
        return Value(atom.val, is_constant=True) if isinstance(atom, Literal) else known[atom]

    for index, eqn in enumerate(jaxpr.eqns):
        inputs = [read(atom) for atom in eqn.invars]
        path = join(frame.path, path_of(str(eqn.source_info.name_stack)))
        event = Event(eqn, frame, path, (*frame.key, index), inputs, body=called(eqn))
        if eqn.primitive.name == "cond":
            event.body = closed(eqn.params["branches"][int(inputs[0].array)])
        is_constant = all(value.is_constant for value in inputs)
        results = execute(eqn, [value.array for value in inputs])
        event.outputs = [Value(array, event, is_constant=is_constant) for array in results]
        if eqn.primitive.name == "is_finite":
            frame.tested.extend(inputs)
        if eqn.primitive.name == "cond":  # from here on, it is a call of the branch
            event.inputs = inputs[1:]
        known.update(zip(eqn.outvars, event.outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _scan_parts(event: Event, scan: Scan) -> list[list[Value]]:
    consts = event.inputs[: scan.consts]
    carry = event.inputs[scan.consts :][: scan.carry]
    stacked = event.inputs[scan.consts + scan.carry :]
    body = jax.jit(jaxpr_as_fun(scan.body))
    rows: list[list[Value]] = [[] for _ in event.outputs[scan.carry :]]
    order = range(scan.length)
    for count, index in enumerate(reversed(order) if scan.reverse else order):
        slices = [_row(value, index) for value in stacked]
        once = _iteration(event, count, index, [*consts, *carry, *slices], scan.body, scan.carry)
        _call(once, body)
        carry = once.outputs[: scan.carry]
        for row, value in zip(rows, once.outputs[scan.carry :], strict=True):
            row.append(value)
    return [*([value] for value in carry), *rows]


def _while_parts(event: Event) -> list[list[Value]] | None:
    params = event.eqn.params
    first, second = params["cond_nconsts"], params["body_nconsts"]
    asked, consts = event.inputs[:first], event.inputs[first:][:second]
    carry = event.inputs[first + second :]
    jaxpr = closed(params["body_jaxpr"])
    body, goes_on = (
        jax.jit(jaxpr_as_fun(jaxpr)),
        jax.jit(jaxpr_as_fun(closed(params["cond_jaxpr"]))),
    )
    for index in range(_ITERATIONS_KEPT):
        if not bool(goes_on(*(value.array for value in [*asked, *carry]))[0]):
            return [[value] for value in carry]
        once = _iteration(event, index, index, [*consts, *carry], jaxpr, len(carry))
        _call(once, body)
        carry = once.outputs
    return None


def _iteration(
    loop: Event, count: int, index: int, inputs: list[Value], body: ClosedJaxpr, carry: int
) -> Event:
    # A number alone would read as the name of a part.
    path = join(loop.path, f"{index}" if loop.path else f"[{index}]")
    return Event(loop.eqn, loop.frame, path, (*loop.key, count), inputs, body=body, carry=carry)


def _call(event: Event, body: Any) -> None:
    arrays = body(*(value.array for value in event.inputs))
    event.outputs = [Value(array, event) for array in arrays]


def _row(whole: Value, index: int) -> Value:
    array = lax.dynamic_index_in_dim(whole.array, index, keepdims=False)
    return Value(array, whole=whole, is_constant=whole.is_constant)
