"""What leaves each named part of a function: two executions compared part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from functorch_kit.program.difference import leaf_difference
from functorch_kit.program.probe import probed
from functorch_kit.types import PyTree


def layer_outputs(
    fn: Callable[..., Any], *args: PyTree, compiled: bool = True
) -> dict[str, np.ndarray]:
    """The outputs of the parts of one call, by path, in the order of execution.

    See ``probed`` for which parts are seen. Outputs of a part that is called several times, or in
    every step of a loop around the whole, follow each other in one array: those of micro-batches
    are those of the batch.

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

    def values(*args: PyTree) -> list[Any]:
        _, found = probed(fn, *args)
        paths[:] = found
        return list(found.values())

    outputs = (jax.jit(values) if compiled else values)(*args)
    apart: dict[str, list[np.ndarray]] = {}
    for path, value in zip(paths, outputs, strict=True):
        # ``[*]/hidden``: in a loop around the whole; ``hidden#2``: its second value.
        name = path.replace("[*]/", "").partition("#")[0]
        apart.setdefault(name, []).append(np.ravel(value))
    return {name: np.concatenate(each) for name, each in apart.items()}


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
