"""What leaves each named part of a function: two executions compared part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from functorch_kit.program.difference import leaf_difference
from functorch_kit.program.scopes import join, path_of
from functorch_kit.types import PyTree

_INLINED = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call",
            "custom_vjp_call", "custom_vjp_call_jaxpr"}  # fmt: skip


Found = dict[str, list[Any]]


def layer_outputs(
    fn: Callable[..., Any], *args: PyTree, compiled: bool = True
) -> dict[str, np.ndarray]:
    """The outputs of the parts of one call, by path, in the order of execution.

    Combinators mark them (``nn.tag``). Outputs of a part that is called several times, or in every
    step of a ``scan``, follow each other in one array: those of micro-batches are those of the
    batch. Of a gradient it is the forward pass that counts. Parts inside a branch, a ``while`` loop
    or a ``shard_map`` are not seen.

    Args:
        fn: a pure function of pytrees; it may take derivatives.
        *args: its arguments.
        compiled: whether XLA compiles the whole, or JAX dispatches operation by operation.

    Returns:
        Path -> all values, flat, on the host.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> net = nn.serial(hidden=nn.dense(2, use_bias=False), act=nn.relu)
        >>> params = {"hidden": {"kernel": jnp.array([[1.0, -1.0]])}, "act": {}}
        >>> state = {"hidden": (), "act": ()}
        >>> found = layer_outputs(lambda x: net.apply(params, state, x)[0], jnp.ones((1, 1)))
        >>> {path: value.tolist() for path, value in found.items()}
        {'hidden': [1.0, -1.0], 'act': [1.0, 0.0]}
    """
    paths: list[str] = []

    def values(*args: PyTree) -> list[list[jax.Array]]:
        closed = jax.make_jaxpr(fn)(*args)
        found: Found = {}
        _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), "", found)
        paths[:] = found
        return list(found.values())

    outputs = (jax.jit(values) if compiled else values)(*args)
    flat = (np.concatenate([np.ravel(each) for each in one]) for one in outputs)
    return dict(zip(paths, flat, strict=True))


def first_divergence(
    reference: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float
) -> str | None:
    """The first part whose output is further from the reference's than a tolerance.

    Args:
        reference: see ``layer_outputs``; its order counts.
        other: likewise; parts that are not in both, or of another size, are passed over.
        tolerance: in units of the output's scale.

    Returns:
        The path, or None if none of them is.

    Example:
        >>> one, other = {"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.zeros(2)}
        >>> first_divergence(one, other, 1e-5)
        'b'
    """
    for path, expected in reference.items():
        got = other.get(path)
        if got is None or got.shape != expected.shape:
            continue
        if leaf_difference(path, expected, got).relative > tolerance:
            return path
    return None


def _evaluate(
    jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], outer: str, found: Found
) -> list[Any]:
    """Run a jaxpr, and collect what its marks let pass."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        stack = str(eqn.source_info.name_stack)
        scope = join(outer, path_of(stack))
        name = eqn.primitive.name
        inner = _inner(eqn.params)
        if "transpose(" in stack or "rematted_computation" in stack:
            # On the way back, what is named is computed a second time.
            outputs = _bound(eqn, inputs)
        elif name == "name":
            _collect(eqn.params["name"], scope, inputs[0], found)
            outputs = inputs
        elif name in _INLINED and inner is not None:
            outputs = _evaluate(inner[0], inner[1], inputs[-len(inner[0].invars) or None :],
                                scope, found)  # fmt: skip
        elif name == "scan":
            outputs = _scan(eqn.params, inputs, scope, found)
        else:
            outputs = _bound(eqn, inputs)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(eqn: JaxprEqn, inputs: list[Any]) -> list[Any]:
    outputs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return outputs if eqn.primitive.multiple_results else [outputs]


def _inner(params: dict[str, Any]) -> tuple[Jaxpr, Sequence[Any]] | None:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = params.get(key)
        if inner is not None:
            return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
    return None


def _scan(params: dict[str, Any], inputs: list[Any], scope: str, found: Found) -> list[Any]:
    body, fixed, carried = params["jaxpr"], params["num_consts"], params["num_carry"]
    paths: list[str] = []

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
        inside: Found = {}
        given = [*inputs[:fixed], *carry, *xs]
        outputs = _evaluate(body.jaxpr, body.consts, given, scope, inside)
        paths[:] = inside
        return outputs[:carried], (outputs[carried:], list(inside.values()))

    carry, (stacked, collected) = jax.lax.scan(
        step,
        inputs[fixed : fixed + carried],
        inputs[fixed + carried :],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    for path, values in zip(paths, collected, strict=True):
        found.setdefault(path, []).extend(values)
    return [*carry, *stacked]


def _collect(name: str, scope: str, value: Any, found: Found) -> None:
    # A name that is not the path of where it stands is a user's own, for rematerialization.
    if scope not in (name, name.rpartition("/")[0]) or not hasattr(value, "dtype"):
        return
    found.setdefault(name, []).append(value)
