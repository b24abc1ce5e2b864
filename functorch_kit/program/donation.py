"""Which donated buffers the compiled program really uses again."""

from __future__ import annotations

import re

from jax.stages import Compiled

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
