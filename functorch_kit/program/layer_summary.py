"""What a model is made of: a row for each named part, from shapes alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.extend.core import Jaxpr

from functorch_kit.program.cost import equations, jaxpr_flops_by_scope
from functorch_kit.program.scopes import prefixes
from functorch_kit.program.specs import describe, leaf_names, to_spec
from functorch_kit.types import Model, Spec


@dataclass(frozen=True)
class SummaryRow:
    """One part of a model.

    Attributes:
        path: its address, ``blocks/3/attention``; ``""`` is the model itself.
        output: shape and dtype of what it returns, ``float32[64,10]``.
        params: how many parameters it has (elements, not bytes).
        flops: floating-point operations of one forward pass through it.
        own: in ``Summary.rows``, it has parts of its own, and this row is what is in none of them.
    """

    path: str
    output: str
    params: int
    flops: int
    own: bool = False


@dataclass(frozen=True)
class Summary:
    """The parts of a model in order of execution.

    Attributes:
        rows: the innermost parts, and for each outer part that has parameters or operations in
            none of them a row of those: the rows add up to the whole.
        totals: path -> all of an outer part, ``""`` for the whole model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jax.ShapeDtypeStruct((4, 8), jnp.float32)
        >>> print(summary(nn.serial(hidden=nn.dense(3), act=nn.relu), x))
        part    output        params  FLOPs
        hidden  float32[4,3]      27    204
        act     float32[4,3]       0     12
        total   float32[4,3]      27    216
    """

    rows: tuple[SummaryRow, ...]
    totals: dict[str, SummaryRow]

    @property
    def params(self) -> int:
        """All parameters of the model."""
        return self.totals[""].params

    @property
    def flops(self) -> int:
        """All floating-point operations of one forward pass."""
        return self.totals[""].flops

    def to_dict(self) -> dict[str, Any]:
        """The same as plain numbers, strings and lists, ready for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "totals": {path: asdict(row) for path, row in self.totals.items()},
        }

    def __str__(self) -> str:
        """The table, its numbers right-aligned, the total last."""
        cells = [("part", "output", "params", "FLOPs")]
        for row in self.rows:
            name = row.path or "(model)"
            cells.append((f"{name} (rest)" if row.own else name, *_numbers(row)))
        cells.append(("total", *_numbers(self.totals[""])))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        justify = (str.ljust, str.ljust, str.rjust, str.rjust)
        return "\n".join(
            "  ".join(to(cell, width) for to, cell, width in zip(justify, row, widths, strict=True))
            for row in cells
        )


def summary(model: Model, x_spec: Spec, *, seed: int = 0, train: bool = False) -> Summary:
    """List the named parts of a model: path, output, parameters, operations.

    Nothing is allocated and nothing runs: the model is traced with shapes.

    Args:
        model: any model; its combinators name the parts.
        x_spec: shape of one batch, a pytree of ``jax.ShapeDtypeStruct``s or arrays.
        seed: of the key that ``init`` gets, for models whose shapes depend on it.
        train: trace the training mode.

    Returns:
        The rows, and the totals of the parts that have parts.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jax.ShapeDtypeStruct((64, 28, 28, 1), jnp.float32)
        >>> found = summary(nn.serial(conv=nn.conv(8, (3, 3)), flat=nn.flatten()), x)
        >>> [(row.path, row.params) for row in found.rows], found.params
        ([('conv', 80), ('flat', 0)], 80)
    """
    x_spec = to_spec(x_spec)
    key = jax.eval_shape(lambda: jax.random.key(seed))
    params, model_state = jax.eval_shape(lambda key: model.init(key, x_spec), key)

    def forward(params, model_state, x, key):
        return model.apply(params, model_state, x, key=key if train else None, train=train)[0]

    jaxpr, y = jax.make_jaxpr(forward, return_shape=True)(params, model_state, x_spec, key)
    outputs = _outputs(jaxpr.jaxpr)
    outer = {parent for path in outputs for parent in prefixes(path)[1:]}
    outputs |= dict.fromkeys(sorted(outer - outputs.keys()), "")  # parts of parts, not marked
    outputs[""] = _described(jax.tree.leaves(y))
    sizes = {name: math.prod(leaf.shape) for name, leaf in leaf_names("", params)}
    own_params = _by_part(sizes, outputs)
    own_flops = _by_part(jaxpr_flops_by_scope(jaxpr.jaxpr), outputs)
    return _assemble(outputs, outer | {""}, own_params, own_flops)


def _assemble(
    outputs: dict[str, str], outer: set[str], own_params: Counter[str], own_flops: Counter[str]
) -> Summary:
    rows = [
        SummaryRow(path, output, own_params[path], own_flops[path], own=path in outer)
        for path, output in outputs.items()
        if path not in outer or own_params[path] or own_flops[path]
    ]
    if len(outputs) == 1:  # nothing is named: the one row is the model
        rows = [SummaryRow("", outputs[""], own_params[""], own_flops[""])]
    totals: dict[str, SummaryRow] = {}
    for path in sorted(outer):
        inside = [part for part in outputs if path in prefixes(part)]
        totals[path] = SummaryRow(
            path,
            outputs[path],
            sum(own_params[part] for part in inside),
            sum(own_flops[part] for part in inside),
        )
    return Summary(tuple(rows), totals)


def _outputs(jaxpr: Jaxpr) -> dict[str, str]:
    """Path -> output of every named part; combinators mark outputs with ``checkpoint_name``."""
    leaves: dict[str, list[Any]] = {}
    previous = ""
    for scope, eqn in equations(jaxpr):
        name = eqn.params["name"] if eqn.primitive.name == "name" else ""
        # A name that is not the path of where it stands is a user's own, for rematerialization.
        marks_part = name and scope in (name, name.rpartition("/")[0])
        # The leaves of one output come in a row; what comes later is another call of the part.
        if marks_part and (name not in leaves or previous == name):
            leaves.setdefault(name, []).append(eqn.outvars[0].aval)
        previous = name
    return {path: _described(found) for path, found in leaves.items()}


def _described(leaves: list[Any]) -> str:
    return ", ".join(map(describe, leaves))


def _by_part(counts: dict[str, int], parts: dict[str, str]) -> Counter[str]:
    """Put each count down to the innermost part that its path lies in."""
    total: Counter[str] = Counter()
    for path, count in counts.items():
        total[next(part for part in prefixes(path) if part in parts)] += count
    return total


def _numbers(row: SummaryRow) -> tuple[str, str, str]:
    return row.output, f"{row.params:,}", f"{row.flops:,}"
