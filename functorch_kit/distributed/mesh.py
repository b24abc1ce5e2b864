"""The devices of a run as a grid with named axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from functorch_kit.errors import UserError

AXES = ("data", "fsdp", "sequence", "tensor")
"""``data`` and ``fsdp`` share out a batch, ``fsdp`` parameters as well; ``sequence`` shares out the
positions of long inputs, ``tensor`` single matrices. Neighbours on the last axis talk most."""
BATCH_AXES = ("data", "fsdp")


class MeshError(UserError, ValueError):
    """Devices, or shapes of arrays, that cannot be shared out as asked.

    Example:
        >>> try:
        ...     make_mesh(data=3, tensor=2, devices=jax.devices()[:4])
        ... except MeshError as error:
        ...     print(error)
        a mesh of data 3 × tensor 2 takes 6 devices, and there are 4: give sizes for 4, one of them
        -1, say
    """


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    sequence: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh whose axes XLA's partitioner may use as it sees fit.

    Args:
        data: parts that a batch is split into, each trained on by a copy of the parameters.
        fsdp: parts that a batch and every large array of the state are split into: parameters are
            gathered layer by layer while they are used (ZeRO, Rajbhandari et al., 2020).
        sequence: parts that the positions of an input are split into.
        tensor: parts that single matrices are split into, by rules (Megatron, Shoeybi et al.,
            2019).
        devices: all that there are if None; fewer are used where the sizes ask for fewer. Several
            processes use all of theirs.

    Returns:
        A mesh with the axes ``AXES``. One of the sizes may be -1: what is left.

    Raises:
        MeshError: sizes that the devices do not fit.

    Example:
        >>> dict(make_mesh(data=-1, tensor=1, devices=jax.devices()[:1]).shape)
        {'data': 1, 'fsdp': 1, 'sequence': 1, 'tensor': 1}
    """
    found = list(jax.devices() if devices is None else devices)
    sizes: dict[str, int] = dict(zip(AXES, (data, fsdp, sequence, tensor), strict=True))
    shape = mesh_shape(len(found), **sizes)
    wanted = math.prod(shape)
    processes = {device.process_index for device in found}
    if wanted < len(found) and len(processes) > 1:
        raise MeshError(
            f"{_in_words(sizes)} takes {wanted} of the {len(found)} devices of {len(processes)}"
            " processes, which must all take part: give mesh.data=-1, say"
        )
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=found[:wanted])


def mesh_shape(
    count: int, data: int = -1, fsdp: int = 1, sequence: int = 1, tensor: int = 1
) -> tuple[int, ...]:
    """The sizes of a mesh's axes, with -1 worked out.

    Args:
        count: number of devices.
        data: see ``make_mesh``, as for the others.
        fsdp: of these.
        sequence: of these.
        tensor: of these.

    Raises:
        MeshError: sizes that so many devices do not fit.

    Example:
        >>> mesh_shape(8, data=-1, fsdp=2)
        (4, 2, 1, 1)
    """
    sizes: dict[str, int] = dict(zip(AXES, (data, fsdp, sequence, tensor), strict=True))
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise MeshError(f"{_in_words(sizes)}: give numbers from 1 up, and -1 for one at most")
    taken = math.prod(size for size in sizes.values() if size != -1)
    if open_axes and count % taken:
        raise MeshError(
            f"{count} devices do not split by {_in_words(sizes)}: give sizes whose product divides"
            f" {count}"
        )
    if open_axes:
        sizes[open_axes[0]] = count // taken
    if (wanted := math.prod(sizes.values())) > count:
        raise MeshError(
            f"{_in_words(sizes)} takes {wanted} devices, and there are {count}: give sizes for"
            f" {count}, one of them -1, say"
        )
    return tuple(sizes.values())


def axis_sizes(mesh: Any) -> dict[str, int]:
    """Axis -> size, of those axes that split anything.

    Example:
        >>> axis_sizes(jax.sharding.AbstractMesh((2, 1), ("data", "fsdp")))
        {'data': 2}
    """
    return {name: size for name, size in mesh.shape.items() if size > 1}


def _in_words(sizes: dict[str, int]) -> str:
    parts = [f"{name} {size}" for name, size in sizes.items() if size != 1]
    return f"a mesh of {' × '.join(parts) or 'data 1'}"
