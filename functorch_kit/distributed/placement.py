"""A layout in words and numbers: for the report, and for planning."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
from jax.sharding import PartitionSpec

from functorch_kit.distributed.collectives import collectives
from functorch_kit.distributed.layout import Layout
from functorch_kit.distributed.mesh import axis_sizes
from functorch_kit.distributed.rules import axes_of
from functorch_kit.program.specs import size_in_bytes
from functorch_kit.types import PyTree, path_name

_NUMBER = re.compile(r"(?<=/)\d+(?=/)|^\d+(?=/)")


def bytes_per_device(tree: PyTree) -> int:
    """Bytes of a tree on one device: of each array the part that lies there.

    Args:
        tree: arrays, or specs with shardings; what has none is counted whole.

    Example:
        >>> bytes_per_device({"x": jax.ShapeDtypeStruct((2, 3), "float32")})
        24
    """
    return sum(size_in_bytes(leaf) for leaf in jax.tree.leaves(tree))


def layout_facts(layout: Layout, state: Any) -> dict[str, Any]:
    """What lies where: the mesh, each parameter's layout, and bytes on one device.

    Args:
        layout: where.
        state: a TrainState of specs.

    Returns:
        Plain values for ``program.json``. Parameters that lie alike and differ by a number in their
        path, such as those of many blocks, are one entry.

    Example:
        >>> from functorch_kit.distributed import make_mesh
        >>> from functorch_kit.train import TrainState
        >>> layout = Layout(make_mesh(data=1, devices=jax.devices()[:1]))
        >>> step, key = jax.eval_shape(lambda: (0, jax.random.key(0)))
        >>> state = TrainState(step, {"w": jax.ShapeDtypeStruct((2, 3), "float32")}, (), (), key)
        >>> layout_facts(layout, state)["parameters"]
        [{'path': 'w', 'count': 1, 'shape': [2, 3], 'spec': ['', ''], 'bytes_per_device': 24}]
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    shardings = layout.of_params(state.params)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        name = _NUMBER.sub("*", path_name(path))
        entries = spec_words(sharding.spec, len(leaf.shape))
        here = math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        row = rows.setdefault(
            (name, leaf.shape, tuple(entries)),
            {
                "path": name,
                "count": 0,
                "shape": list(leaf.shape),
                "spec": entries,
                "bytes_per_device": here,
            },
        )
        row["count"] += 1
    on_mesh = layout.on_mesh(state)
    sizes = {
        field: {
            "bytes": bytes_per_device(_whole(getattr(state, field))),
            "bytes_per_device": bytes_per_device(getattr(on_mesh, field)),
        }
        for field in ("params", "opt_state")
    }
    return {
        "mesh": axis_sizes(layout.mesh) or {"data": 1},
        "devices": layout.mesh.size,
        "parameters": list(rows.values()),
        "state": sizes,
    }


def _whole(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def collective_facts(programs: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The collectives of compiled programs, as plain values for ``program.json``.

    Args:
        programs: name -> ``Program``.

    Example:
        >>> collective_facts({})
        {}
    """
    return {
        name: [each._asdict() for each in collectives(compiled)]
        for name, compiled in programs.items()
    }


def spec_words(spec: PartitionSpec, axes: int) -> list[str]:
    """A word for each axis of an array: the mesh's axes that it is split over.

    Example:
        >>> spec_words(PartitionSpec(None, ("data", "fsdp")), 3)
        ['', 'data × fsdp', '']
    """
    entries = [*spec, *[None] * (axes - len(spec))]
    return [" × ".join(axes_of(entry)) for entry in entries]
