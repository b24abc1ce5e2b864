"""The first non-finite value of a run, in words: layer, direction, operation, numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from functorch_kit.program.array_statistics import Statistics, statistics
from functorch_kit.program.directions import Directions
from functorch_kit.program.eager_run import Value

_LIBRARY = str(Path(jax.__file__).parent)


@dataclass(frozen=True)
class Finding:
    """Where the first non-finite value of a function came from.

    Attributes:
        path: the layer, like ``blocks/7/attention/weights``, with the iteration of a loop in its
            place (``[2]/blocks`` where no scope holds the loop), ``""`` outside any; or the
            argument's address, like ``batch/x``.
        direction: ``"forward"``; ``"backward"``; ``"update"`` (computed from gradients, behind the
            backward pass); ``"argument"`` for a value that came in.
        primitive: the operation, as JAX calls it; ``""`` of an argument.
        output: what it gave; of an argument, the argument.
        inputs: what it was given.
        line: the innermost line of source outside JAX, like ``linear.py:80``, where it is known.
        reached: the first of the function's outputs that it spoiled.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.program import first_nonfinite
        >>> finding = first_nonfinite(lambda x: jnp.log(x), jnp.array([1.0, -1.0]))
        >>> finding.primitive, finding.direction, finding.output.nan, finding.inputs[0].least
        ('log', 'forward', 1, -1.0)
    """

    path: str
    direction: str
    primitive: str
    output: Statistics
    inputs: tuple[Statistics, ...] = ()
    line: str | None = None
    reached: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.direction == "argument":
            row = self.output.first_bad[0] if self.output.first_bad else None
            where = "" if row is None else f" (row {row})"
            lines = [f"argument {self.path}{where} came in non-finite", self.output]
            return "\n  ".join(map(str, lines))
        where = self.path or "outside any named part"
        written = f" ({self.line})" if self.line else ""
        lines = [f"{where}, {self.direction}: {self.primitive}{written}", self.output, *self.inputs]
        if self.reached:
            lines.append(f"first seen in {self.reached}")
        return "\n  ".join(map(str, lines))


def finding_of(value: Value, reached: str | None = None) -> Finding:
    """Describe a value, and what made it.

    Args:
        value: the value.
        reached: the first output that it spoiled.

    Example:
        >>> import jax.numpy as jnp
        >>> print(finding_of(Value(jnp.array([1.0, jnp.nan]), argument="batch/x")))
        argument batch/x (row 1) came in non-finite
          batch/x float32[2]: 1 NaN, 0 +Inf, 0 -Inf, the rest from 1 to 1, first at [1]
    """
    event = value.event
    if event is None:
        address = value.argument or "argument"
        came_in = statistics(address, value.array)
        return Finding(address, "argument", "", came_in, reached=reached)
    inputs = tuple(
        statistics(each.argument or f"input {index}", each.array)
        for index, each in enumerate(event.inputs)
    )
    return Finding(
        event.path,
        Directions().of(event),
        event.eqn.primitive.name,
        statistics("output", value.array),
        inputs,
        _line(event.eqn),
        reached,
    )


def _line(eqn: JaxprEqn) -> str | None:
    traceback = eqn.source_info.traceback
    for frame in [] if traceback is None else traceback.frames:
        if not frame.file_name.startswith(_LIBRARY):
            return f"{Path(frame.file_name).name}:{frame.line_num}"
    return None
