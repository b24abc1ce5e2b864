"""A traced function as one row of steps: calls inside it are unfolded, nothing is named twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from functorch_kit.types import PyTree

# Calls that mean their body and nothing else. Custom derivatives stay closed: their body is not
# what is differentiated. A remat is unfolded: what it saves, chunks of examples save as well.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"}


class Step(NamedTuple):
    """One operation: its equation, and the numbers of the values that it reads and writes.

    Attributes:
        eqn: as JAX traced it.
        inputs: numbers of the operands.
        outputs: numbers of the results.
        scope: the named parts that it stands in, those around calls included.
    """

    eqn: JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str

    @property
    def name(self) -> str:
        """The primitive's."""
        return self.eqn.primitive.name

    def operand(self, position: int) -> Any:
        """Shape and dtype of what it reads."""
        return self.eqn.invars[position].aval

    def result(self, position: int = 0) -> Any:
        """Shape and dtype of what it makes."""
        return self.eqn.outvars[position].aval


class Flat(NamedTuple):
    """A function in steps; every value has a number.

    Attributes:
        avals: shape and dtype of each value, by number.
        inputs: of the function, leaf by leaf.
        outputs: likewise.
        constants: values that are no input and no step's result, by number.
        steps: in order of execution.
    """

    avals: list[Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: dict[int, Any]
    steps: list[Step]


def flatten(jaxpr: ClosedJaxpr) -> Flat:
    """Unfold the calls of a jaxpr.

    Args:
        jaxpr: as ``jax.make_jaxpr`` returns it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = jax.jit(lambda x: jax.jit(jnp.sin)(x) + 1)
        >>> [step.name for step in flatten(jax.make_jaxpr(f)(1.0)).steps]
        ['sin', 'add']
    """
    avals: list[Any] = []
    constants: dict[int, Any] = {}
    steps: list[Step] = []

    def new(aval: Any) -> int:
        avals.append(aval)
        return len(avals) - 1

    def constant(value: Any, aval: Any) -> int:
        number = new(aval)
        constants[number] = value
        return number

    def unfold(body: ClosedJaxpr, operands: Sequence[int], outer: str) -> list[int]:
        known: dict[Any, int] = dict(zip(body.jaxpr.invars, operands, strict=True))
        for variable, value in zip(body.jaxpr.constvars, body.consts, strict=True):
            known[variable] = constant(value, variable.aval)

        def read(atom: Any) -> int:
            return constant(atom.val, atom.aval) if isinstance(atom, Literal) else known[atom]

        for eqn in body.jaxpr.eqns:
            inputs = tuple(map(read, eqn.invars))
            inner, own = _called(eqn), str(eqn.source_info.name_stack)
            scope = f"{outer}/{own}" if outer and own else outer or own
            if inner is not None:
                outputs = unfold(inner, inputs, scope)
            else:
                outputs = [new(variable.aval) for variable in eqn.outvars]
                steps.append(Step(eqn, inputs, tuple(outputs), scope))
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in body.jaxpr.outvars]

    inputs = tuple(new(variable.aval) for variable in jaxpr.jaxpr.invars)
    outputs = tuple(unfold(jaxpr, inputs, ""))
    return Flat(avals, inputs, outputs, constants, steps)


def trace(f: Callable[..., Any], *specs: PyTree) -> tuple[Flat, Any]:
    """A function in steps, and the shapes of its output.

    Args:
        f: pure.
        *specs: its arguments, or their ``jax.ShapeDtypeStruct``s.

    Example:
        >>> flat, y = trace(lambda x: {"y": 2 * x}, 1.0)
        >>> len(flat.steps), y["y"].shape
        (1, ())
    """
    jaxpr, shape = jax.make_jaxpr(f, return_shape=True)(*specs)
    return flatten(jaxpr), shape


def execute(step: Step, operands: Sequence[Any]) -> list[Any]:
    """The results of one step, for given operands; nothing is donated.

    Example:
        >>> import jax
        >>> (step,) = flatten(jax.make_jaxpr(lambda x: -x)(1.0)).steps
        >>> execute(step, [2.0])[0].item()
        -2.0
    """
    eqn = step.eqn
    params = dict(eqn.primitive.get_bind_params(eqn.params))
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def evaluate(
    flat: Flat,
    values: Sequence[Any],
    instead: Callable[[int, list[Any]], list[Any] | None] = lambda index, operands: None,
) -> list[Any]:
    """Run the steps.

    Args:
        flat: the function.
        values: of its inputs, leaf by leaf.
        instead: ``instead(index, operands)``: the results of a step by its place in the row, or
            None to execute it as it is.

    Returns:
        The outputs, leaf by leaf.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> flat = flatten(jax.make_jaxpr(lambda x: jnp.sin(x) + 1)(0.0))
        >>> evaluate(flat, [0.0], lambda index, operands: [5.0] if index == 0 else None)[0].item()
        6.0
    """
    known = {**flat.constants, **dict(zip(flat.inputs, values, strict=True))}
    for index, step in enumerate(flat.steps):
        operands = [known[number] for number in step.inputs]
        results = instead(index, operands)
        if results is None:
            results = execute(step, operands)
        known.update(zip(step.outputs, results, strict=True))
    return [known[number] for number in flat.outputs]


def live_bytes(flat: Flat) -> list[int]:
    """What the results of steps take at once while each of the steps runs, one by one.

    An upper estimate of what a compiled program holds beside its arguments: XLA fuses steps, and
    then never stores what is between them. A value is freed after its last use.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> chain = lambda x: jnp.sum(jnp.sin(jnp.cos(x)))
        >>> live_bytes(flatten(jax.make_jaxpr(chain)(jnp.ones(256))))
        [1024, 2048, 1028]
    """
    last: dict[int, int] = {}
    for index, step in enumerate(flat.steps):
        last.update(dict.fromkeys(step.inputs, index))
    last.update(dict.fromkeys(flat.outputs, len(flat.steps)))
    live, found = 0, []
    made: set[int] = set()
    for index, step in enumerate(flat.steps):
        made.update(step.outputs)
        live += sum(_bytes(flat.avals[number]) for number in step.outputs)
        found.append(live + max(map(_inside, _bodies(step.eqn)), default=0))
        gone = {
            number
            for number in (*step.inputs, *step.outputs)
            if number in made and last.get(number, index) <= index
        }
        live -= sum(_bytes(flat.avals[number]) for number in gone)
    return found


def _called(eqn: JaxprEqn) -> ClosedJaxpr | None:
    if eqn.primitive.name not in _CALLS:
        return None
    return _closed(eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"])


def _closed(jaxpr: Any) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _bodies(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    found = jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda leaf: isinstance(leaf, ClosedJaxpr)
    )
    return [leaf for leaf in found if isinstance(leaf, ClosedJaxpr)]


def _inside(body: ClosedJaxpr) -> int:
    return max(live_bytes(flatten(body)), default=0)


def _bytes(aval: Any) -> int:
    dtype = getattr(aval, "dtype", None)
    return 0 if dtype is None else int(aval.size) * int(dtype.itemsize)
