"""The value that leaves each named part, beside the function's own output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from functorch_kit.program.calls import called, execute, holds, scan_of
from functorch_kit.program.scopes import join, path_of

Probes = dict[str, Any]
"""Path -> array, in order of execution; ``*`` in a path stands for the iterations of a loop."""


class _Place(NamedTuple):
    """Where equations stand: the scope, and the same with a star for each loop around them."""

    scope: str = ""
    starred: str = ""
    loop: str = ""
    """The latter, of the innermost loop."""

    def inside(self, eqn: JaxprEqn) -> _Place:
        path = path_of(str(eqn.source_info.name_stack))
        return self._replace(scope=join(self.scope, path), starred=join(self.starred, path))

    def in_loop(self) -> _Place:
        # A number alone would read as the name of a part.
        starred = join(self.starred, "*" if self.scope else "[*]")
        return _Place(self.scope, starred, starred)

    def address(self, eqn: JaxprEqn) -> str:
        """Where a value that ``tag`` marked stands; or its name, if someone else named it."""
        name, here = eqn.params["name"], self.inside(eqn)
        own = path_of(str(eqn.source_info.name_stack))
        # Not the tag's own words: it knows of no loops, and JAX may have traced the body of this
        # loop when it stood elsewhere.
        if name == here.scope or (own and f"/{name}".endswith(f"/{own}")):
            return here.starred
        return join(self.loop, name)


def probed(fn: Callable[..., Any], *args: Any) -> tuple[Any, Probes]:
    """Call a function, and return what passes through its named parts as well.

    Parts are named by ``nn.tag`` or ``jax.ad_checkpoint.checkpoint_name``. They are found inside
    ``jit``, ``jax.checkpoint``, custom derivatives and ``scan``, of the forward pass of a
    function that takes gradients too; not inside ``while``, ``cond`` and ``shard_map``. Pure and
    traceable: jit it to see the compiled program's values, or leave it to see those of an eager
    call. Take gradients inside ``fn`` and not of this: custom derivatives of ``fn`` are unfolded.

    Args:
        fn: a pure function that JAX can trace.
        *args: its arguments.

    Returns:
        The output of ``fn``, and path -> value. A part inside a scan has one value for all
        iterations, stacked, at ``blocks/*/attention`` (``[*]/attention`` if no scope holds the
        scan), see ``by_iteration``; a second value of one path is at ``path#2``.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.serial(double=nn.lambda_(lambda x: 2 * x), square=nn.lambda_(jnp.square))
        >>> y, values = probed(lambda x: model.apply({}, (), x)[0], jnp.arange(3.0))
        >>> {path: value.tolist() for path, value in values.items()}
        {'double': [0.0, 2.0, 4.0], 'square': [0.0, 4.0, 16.0]}
    """
    jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    values: Probes = {}
    flat = _evaluate(jaxpr, jax.tree.leaves(args), _Place(), values)
    return jax.tree.unflatten(jax.tree.structure(shape), flat), values


def by_iteration(values: Probes) -> Probes:
    """Take stacked values apart: ``blocks/*/norm`` becomes ``blocks/0/norm``, ``blocks/1/norm``.

    The parts of one iteration come together, as if the loop had been written out.

    Example:
        >>> import jax.numpy as jnp
        >>> by_iteration({"stem": jnp.ones(()), "blocks/*/norm": jnp.arange(2.0)})
        {'stem': Array(1., dtype=float32), 'blocks/0/norm': Array(0., dtype=float32),
        'blocks/1/norm': Array(1., dtype=float32)}
    """
    apart: Probes = {}
    names = list(values)
    while names:
        before, star, _ = names[0].partition("*")
        if not star:
            name = names.pop(0)
            apart[name] = values[name]
            continue
        length = len(values[names[0]])
        loop = [
            name for name in names if name.startswith(f"{before}*") and len(values[name]) == length
        ]
        names = [name for name in names if name not in loop]
        for index in range(length):
            once = {name.replace("*", str(index), 1): values[name][index] for name in loop}
            apart |= by_iteration(once)
    return apart


def _evaluate(
    jaxpr: ClosedJaxpr, arguments: Sequence[Any], place: _Place, values: Probes
) -> list[Any]:
    known = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    known |= dict(zip(jaxpr.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.jaxpr.eqns:
        results = _evaluate_one(eqn, [read(atom) for atom in eqn.invars], place, values)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _evaluate_one(eqn: JaxprEqn, operands: list[Any], place: _Place, values: Probes) -> list[Any]:
    stack = str(eqn.source_info.name_stack)
    # On the way back, what is named is computed a second time.
    if "transpose(" not in stack and "rematted_computation" not in stack:
        if eqn.primitive.name == "name":
            _put(values, place.address(eqn), operands[0])
        elif (body := called(eqn)) and holds(body.jaxpr, "name"):
            return _evaluate(body, operands, place.inside(eqn), values)
        elif eqn.primitive.name == "scan" and holds(scan_of(eqn).body.jaxpr, "name"):
            return _evaluate_scan(eqn, operands, place.inside(eqn).in_loop(), values)
    return execute(eqn, operands)


def _evaluate_scan(eqn: JaxprEqn, operands: list[Any], place: _Place, values: Probes) -> list[Any]:
    scan = scan_of(eqn)
    consts, start = operands[: scan.consts], operands[scan.consts :][: scan.carry]

    # A dict would come out of the loop with its keys sorted; the order is kept aside.
    order: list[str] = []

    def body(carry: list[Any], rows: list[Any]) -> tuple[list[Any], Any]:
        inner: Probes = {}
        results = _evaluate(scan.body, [*consts, *carry, *rows], place, inner)
        order[:] = inner
        return results[: scan.carry], (results[scan.carry :], list(inner.values()))

    carry, (stacked, inner) = lax.scan(
        body,
        start,
        operands[scan.consts + scan.carry :],
        length=scan.length,
        reverse=scan.reverse,
        unroll=eqn.params["unroll"],
    )
    for name, value in zip(order, inner, strict=True):
        _put(values, name, value)
    return [*carry, *stacked]


def _put(values: Probes, path: str, value: Any) -> None:
    number, name = 1, path
    while name in values:
        number += 1
        name = f"{path}#{number}"
    values[name] = value
