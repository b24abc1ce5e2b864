"""One program on many devices and processes: a mesh, rules for what lies where, and planning."""

from functorch_kit.distributed.collectives import Collective, collectives
from functorch_kit.distributed.launcher import free_port, launch
from functorch_kit.distributed.layout import Layout
from functorch_kit.distributed.mesh import AXES, MeshError, axis_sizes, make_mesh, mesh_shape
from functorch_kit.distributed.placement import bytes_per_device, collective_facts, layout_facts
from functorch_kit.distributed.processes import ProcessError, Team, connect, place_of, process_count
from functorch_kit.distributed.rules import GPT, MLP, SMALLEST, VIT, Rules, partition

__all__ = [
    "AXES",
    "GPT",
    "MLP",
    "SMALLEST",
    "VIT",
    "Collective",
    "Layout",
    "MeshError",
    "ProcessError",
    "Rules",
    "Team",
    "axis_sizes",
    "bytes_per_device",
    "collective_facts",
    "collectives",
    "connect",
    "free_port",
    "launch",
    "layout_facts",
    "make_mesh",
    "mesh_shape",
    "partition",
    "place_of",
    "process_count",
]
