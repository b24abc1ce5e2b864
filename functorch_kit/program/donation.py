"""Which donated buffers the compiled program really uses again, and why it leaves the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
from jax.stages import Compiled

from functorch_kit.program.specs import describe

_ALIAS = re.compile(r"\{[\d, ]*\}: \((\d+), ")
_PARAMETER = re.compile(r" parameter\((\d+)\)")


def reused_parameters(compiled: Compiled, leaves: int) -> set[int] | None:
    """Indices of the argument leaves whose memory holds an output afterwards.

    Read from the compiled module's header, the only place that says it leaf by leaf. Donation is a
    wish: a leaf without an output of its size, or a program that still reads the leaf when the
    output is written, keeps its own memory.

    Args:
        compiled: a program compiled with ``keep_unused=True``, so that parameters are leaves.
        leaves: how many leaves its arguments have.

    Returns:
        Leaf indices in flattening order, or None where the backend shows no text.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> add = jax.jit(lambda x, y: x + y, donate_argnums=0, keep_unused=True)
        >>> reused_parameters(add.lower(jnp.zeros(3), jnp.zeros(3)).compile(), 2)
        {0}
    """
    try:
        text = compiled.as_text()
    except (NotImplementedError, RuntimeError):
        return None
    if not text or "ENTRY " not in text:
        return None
    header = text.partition("\n")[0]
    entry = text[text.rindex("ENTRY ") :]
    parameters = {int(number) for number in _PARAMETER.findall(entry)}
    # What JAX adds of its own (tokens of ordered effects, hoisted constants) comes first.
    offset = len(parameters) - leaves
    if offset < 0:
        return None
    _, _, aliases = header.partition("input_output_alias={")
    found = (int(number) - offset for number in _ALIAS.findall(aliases.partition(" }")[0]))
    return {number for number in found if number >= 0}


def why_not_reused(
    kept: Sequence[tuple[str, Any]], reused: Sequence[Any], outputs: Sequence[Any]
) -> dict[str, str]:
    """Say of each donated leaf whose memory is not used again why it is not.

    A buffer can only hold an output of its own shape and dtype, and only one of them.

    Args:
        kept: address and spec of the leaves.
        reused: specs of the donated leaves that do hold an output.
        outputs: specs of the outputs.

    Returns:
        Address -> reason.

    Example:
        >>> three, four = (jax.ShapeDtypeStruct((n,), "float32") for n in (3, 4))
        >>> why_not_reused([("state/moments", three)], [four], [four])
        {'state/moments': 'no output is float32[3]'}
        >>> why_not_reused([("state/w", four)], [four], [four])
        {'state/w': 'the one output that is float32[4] holds another donated leaf'}
    """
    made, taken = Counter(map(describe, outputs)), Counter(map(describe, reused))

    def reason(kind: str) -> str:
        count = made[kind]
        if not count:
            same = {describe(jax.ShapeDtypeStruct(each.shape, each.dtype)) for each in outputs}
            near = sorted(each for each in same if each.partition("[")[2] == kind.partition("[")[2])
            return f"no output is {kind}" + (f", only {' and '.join(near)}" if near else "")
        if taken[kind] >= count:
            several = "the one output that is" if count == 1 else f"all {count} outputs that are"
            other = "holds another donated leaf" if count == 1 else "hold other donated leaves"
            return f"{several} {kind} {other}"
        return (
            f"the compiler keeps it apart from the output that is {kind}: they lie elsewhere, or it"
            " is still read while that output is written"
        )

    return {address: reason(describe(spec)) for address, spec in kept}
