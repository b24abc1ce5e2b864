"""Which pass an equation belongs to: read from JAX's name stacks, and from who reads its result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn, Literal

from functorch_kit.program.eager_run import Event, Frame


class _Flow(NamedTuple):
    """Variables of a jaxpr, by where they come from and go to."""

    read: set[Any]
    """Some equation reads it, or it is an output."""
    after_backward: set[Any]
    """Computed from what the backward pass gives."""
    forward: set[Any]
    """It reaches an end of the jaxpr otherwise than through the backward pass."""


class Directions:
    """Tells the directions of one run's events; what it finds out of a jaxpr it finds out once.

    Example:
        >>> import jax
        >>> from functorch_kit.program.eager_run import Value, run
        >>> jaxpr = jax.make_jaxpr(lambda x: 0.1 * jax.grad(lambda x: x**3)(x))(2.0)
        >>> (y,) = run(Frame(jaxpr), [Value(2.0)])
        >>> directions = Directions()
        >>> directions.of(y.event), directions.of(y.event.inputs[1].event)
        ('update', 'backward')
    """

    def __init__(self) -> None:
        self._flows: dict[Frame, _Flow] = {}

    def of(self, event: Event) -> str:
        """``forward``, ``backward``, or ``update``: computed from what the backward pass gave."""
        frame, eqn = event.frame, event.eqn
        if _is_backward(eqn):
            return "backward"
        outer = self.of(frame.caller) if frame.caller else "forward"
        if outer != "forward":
            return outer
        flow = self._flow(frame)
        differentiated = "jvp(" in str(eqn.source_info.name_stack)
        if not differentiated and not flow.after_backward.isdisjoint(eqn.outvars):
            return "update"
        # Of a derivative's factors, such as 1 / (2 sqrt(x)), many are computed on the way forward;
        # they are told from the layer's own values by who reads them: the backward pass alone.
        return "forward" if _reaches(eqn, flow.forward, flow.read) else "backward"

    def _flow(self, frame: Frame) -> _Flow:
        if frame not in self._flows:
            jaxpr = frame.jaxpr.jaxpr
            read = _variables(jaxpr.outvars).union(*(_variables(e.invars) for e in jaxpr.eqns))
            after: set[Any] = set()
            for eqn in jaxpr.eqns:
                if _is_backward(eqn) or not after.isdisjoint(_variables(eqn.invars)):
                    after.update(eqn.outvars)
            ends = [v for k, v in enumerate(jaxpr.outvars) if self._ends_forward(frame, k)]
            forward = _variables(ends)
            for eqn in reversed(jaxpr.eqns):
                if not _is_backward(eqn) and _reaches(eqn, forward, read):
                    forward |= _variables(eqn.invars)
            self._flows[frame] = _Flow(read, after, forward)
        return self._flows[frame]

    def _ends_forward(self, frame: Frame, index: int) -> bool:
        caller = frame.caller
        if caller is None or index < caller.carry:
            return True
        variable, flow = caller.eqn.outvars[index], self._flow(caller.frame)
        return variable in flow.forward or variable not in flow.read


def _is_backward(eqn: JaxprEqn) -> bool:
    return "transpose(" in str(eqn.source_info.name_stack)


def _reaches(eqn: JaxprEqn, forward: set[Any], read: set[Any]) -> bool:
    return not eqn.outvars or any(v in forward or v not in read for v in eqn.outvars)


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}
