"""Graphs that differ from example to example, run by one compiled program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model, PyTree, spec_of

_SCHEDULE = ("op", "inputs", "argument", "example", "root")


def dynamic(**ops: Model) -> Model:
    """Run a ``schedule`` of graphs: a scan over chunks, in each of which one operation is done.

    Args:
        **ops: an operation for each number, in this order. It takes a dict of ``inputs``, values
            (nodes, most inputs, ...) of which it reads the ones that are its own; ``argument``
            (nodes,); and whatever of ``context`` came with the schedule, the example's part of it
            for each node. It returns values (nodes, ...), a pytree, the same for every operation.
            The first takes no inputs: it says what a value is. None has state.

    Returns:
        A Model from a dict of what ``schedule`` returns, and perhaps ``context``, a dict of arrays
        (graphs, ...), to the value of each graph's last node (graphs, ...).

    Raises:
        LayerError: an input of other names; operations whose values differ.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models, nn
        >>> number = nn.lambda_(lambda x: x["argument"].astype(jnp.float32))
        >>> add = nn.lambda_(lambda x: x["inputs"].sum(1))
        >>> three, four = models.Node(0, argument=3), models.Node(0, argument=4)
        >>> graphs = [[three, four, models.Node(1, (0, 1))], [four]]
        >>> x = models.schedule(graphs, width=2)
        >>> models.dynamic(number=number, add=add).apply({}, (), x)[0].tolist()
        [7.0, 4.0]
    """
    first = next(iter(ops))

    def init(key, x_spec):
        x = _checked(x_spec)
        params: dict[str, Any] = {}
        value: PyTree = None
        for name, part in ops.items():
            with nn.scope(name):
                spec = _node_spec(x, value)
                params[name], state = part.init(nn.part_key(key, name), spec)
                if jax.tree.leaves(state):
                    raise LayerError(f"dynamic: {name} has state, which no order would settle")
                y = nn.output_spec(part, params[name], (), spec)
            value = _without_lead(y) if name == first else value
            if _without_lead(y) != value:
                raise LayerError(f"dynamic: {name} makes {_without_lead(y)}, but {first} {value}")
        return {name: tree for name, tree in params.items() if jax.tree.leaves(tree)}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        x = _checked(x)
        chunks, width = x["argument"].shape
        entry = params.get(first, ()) if isinstance(params, Mapping) else ()
        spec = nn.output_spec(ops[first], spec_of(entry), (), _node_spec(x, None))
        table = jax.tree.map(
            lambda leaf: jnp.zeros((chunks * width, *leaf.shape[1:]), leaf.dtype), spec
        )

        def taken(name: str, part: Model):
            def run(nodes):
                return nn.apply_part(name, part, params, (), nodes, None, train)[0]

            return run

        def skipped(nodes):
            return jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape[1:]), leaf.dtype), spec)

        runs = [skipped, *(taken(name, part) for name, part in ops.items())]

        def step(table, chunk):
            index, at = chunk
            nodes = {
                "inputs": jax.tree.map(lambda leaf: leaf[at["inputs"]], table),
                "argument": at["argument"],
            }
            if "context" in x:
                nodes["context"] = jax.tree.map(lambda leaf: leaf[at["example"]], x["context"])
            values = lax.switch(at["op"] + 1, runs, nodes)
            table = jax.tree.map(
                lambda old, new: lax.dynamic_update_slice_in_dim(old, new, index * width, 0),
                table,
                values,
            )
            return table, None

        order = jnp.arange(chunks, dtype=jnp.int32)
        by_chunk = {name: jnp.asarray(x[name]) for name in ("op", "inputs", "argument", "example")}
        table, _ = lax.scan(step, table, (order, by_chunk))
        return jax.tree.map(lambda leaf: leaf[x["root"]], table), ()

    return Model(init, apply)


def _checked(x: Any) -> Mapping[str, Any]:
    names = set(x) if isinstance(x, Mapping) else set()
    if not set(_SCHEDULE) <= names <= {*_SCHEDULE, "context"}:
        raise LayerError(
            f"dynamic: the input is a dict of {', '.join(sorted(names)) or 'nothing'}: give what "
            "schedule returns, and perhaps a context"
        )
    return x


def _node_spec(x: Mapping[str, Any], value: PyTree) -> dict[str, Any]:
    """What an operation takes; as long as no value is known, there are no inputs."""
    width, most = x["inputs"].shape[1:]

    def of(leaf, *lead: int):
        return jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype)

    spec: dict[str, Any] = {
        "inputs": jax.tree.map(lambda leaf: of(leaf, width, most), value),
        "argument": jax.ShapeDtypeStruct((width,), x["argument"].dtype),
    }
    if "context" in x:
        spec["context"] = jax.tree.map(lambda leaf: of(leaf, width), _without_lead(x["context"]))
    return spec


def _without_lead(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)
