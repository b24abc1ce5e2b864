"""Branches and loops whose condition depends on the example."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.core import ClosedJaxpr

from functorch_kit.transforms.flat import Flat, Step, flatten

Found = tuple[Step, str]
"""A step, and what happens to it under ``jax.vmap``."""


def selects_in(flat: Flat) -> list[Found]:
    """Each ``cond`` and ``while``, at any depth, whose condition depends on the inputs.

    Args:
        flat: a function of one example, of which all inputs differ between examples.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.transforms.flat import trace
        >>> halved = lambda x: jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, x)
        >>> [(step.name, what) for step, what in selects_in(trace(halved, 8.0)[0])]
        [('while', 'it runs for all until the last is done')]
    """
    return _walk(flat, set(flat.inputs))[0]


def _walk(flat: Flat, varies: set[int]) -> tuple[list[Found], list[bool]]:
    """What is found, and which outputs depend on the example."""
    found: list[Found] = []
    varies = set(varies)
    for step in flat.steps:
        inputs = [number in varies for number in step.inputs]
        if any(inputs):
            inner, results = _inside(step, inputs)
            found += inner
            pairs = zip(step.outputs, results, strict=True)
            varies.update(number for number, varied in pairs if varied)
    return found, [number in varies for number in flat.outputs]


def _body(jaxpr: ClosedJaxpr, inputs: Sequence[bool]) -> tuple[list[Found], list[bool]]:
    flat = flatten(jaxpr)
    return _walk(flat, {n for n, varied in zip(flat.inputs, inputs, strict=True) if varied})


def _inside(step: Step, inputs: list[bool]) -> tuple[list[Found], list[bool]]:
    """What is found in a step, and which of its results depend on the example."""
    match step.name:
        case "cond":
            return _cond(step, inputs)
        case "while":
            return _while(step, inputs)
        case "scan":
            return _scan(step, inputs)
        case "custom_jvp_call" | "custom_vjp_call":
            return _body(step.eqn.params["call_jaxpr"], inputs)
        case _:
            return [], [True] * len(step.outputs)


def _cond(step: Step, inputs: list[bool]) -> tuple[list[Found], list[bool]]:
    found: list[Found] = [(step, "both branches run for all")] if inputs[0] else []
    results = [inputs[0]] * len(step.outputs)
    for branch in step.eqn.params["branches"]:
        inner, outputs = _body(branch, inputs[1:])
        found += inner
        results = [a or b for a, b in zip(results, outputs, strict=True)]
    return found, results


def _while(step: Step, inputs: list[bool]) -> tuple[list[Found], list[bool]]:
    params = step.eqn.params
    conds, bodies = params["cond_nconsts"], params["body_nconsts"]
    consts, carry = inputs[conds:][:bodies], inputs[conds + bodies :]
    found: list[Found] = []
    for _ in range(len(carry) + 1):  # what depends on the example may go round
        found, outputs = _body(params["body_jaxpr"], [*consts, *carry])
        carry = [a or b for a, b in zip(carry, outputs, strict=True)]
    if _body(params["cond_jaxpr"], [*inputs[:conds], *carry])[1][0]:
        told = (step, "it runs for all until the last is done")
        return [told, *found], [True] * len(carry)
    return found, carry


def _scan(step: Step, inputs: list[bool]) -> tuple[list[Found], list[bool]]:
    eqn, body = step.eqn, step.eqn.params["jaxpr"]
    # What is stacked has one axis more outside than in the body.
    carried = len(eqn.outvars) - _stacked(eqn.outvars, body.jaxpr.outvars)
    before = len(inputs) - _stacked(eqn.invars, body.jaxpr.invars) - carried
    carry, rows = inputs[before : before + carried], inputs[before + carried :]
    found: list[Found] = []
    outputs: list[bool] = []
    for _ in range(carried + 1):
        found, outputs = _body(body, [*inputs[:before], *carry, *rows])
        carry = [a or b for a, b in zip(carry, outputs[:carried], strict=True)]
    return found, [*carry, *outputs[carried:]]


def _stacked(outside: Sequence, inside: Sequence) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(outer.aval.shape) > len(inner.aval.shape) for outer, inner in pairs)
