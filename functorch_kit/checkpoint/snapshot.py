"""A state as it is now, kept apart from what the next step does to its buffers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.checkpoint import leaves, packed, pieces, sharded
from functorch_kit.checkpoint.errors import CheckpointError, cause_line
from functorch_kit.types import PyTree


class Snapshot(NamedTuple):
    """A state as it was at one moment, in memory that nobody else writes to.

    Attributes:
        content: the bytes of every leaf that is not spread, as the packed file has them.
        device: path -> copy on the device, whose bytes are still to be fetched.
        spread: path -> copy on the devices over which the leaf is spread.
        records: path -> record.
        blocks: of leaves that are spread over processes, what this one has to write.
    """

    content: np.ndarray
    device: dict[str, jax.Array]
    spread: dict[str, jax.Array]
    records: leaves.Records
    blocks: tuple[pieces.Piece, ...] = ()

    def fetch(self) -> None:
        """Bring what is still on a device into ``content``."""
        for leaf in self.device.values():
            leaf.copy_to_host_async()
        for name, leaf in self.device.items():
            np.copyto(self.view(name, leaf), np.asarray(leaf))
        self.device.clear()

    def view(self, name: str, like: Any) -> np.ndarray:
        """The place of a leaf in ``content``, in the shape and dtype of ``like``."""
        offset = self.records[name]["offset"]
        return packed.leaf(self.content, offset, like.shape, np.dtype(like.dtype))


@jax.jit
def _copied(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.copy, arrays)


def _copies(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    places = {name: leaf.sharding for name, leaf in arrays.items()}
    devices = set().union(*(place.device_set for place in places.values()))
    if len(devices) <= 1:
        return _copied(arrays)  # one dispatch
    # Each in its own sharding, which a compiled copy need not keep.
    return jax.device_put(arrays, places, may_alias=False)


def _has_room(arrays: Iterable[jax.Array]) -> bool:
    """Whether a copy fits beside the most that the devices have held so far."""
    needed: Counter[Any] = Counter()
    for array in arrays:
        for shard in array.addressable_shards:
            needed[shard.device] += shard.data.nbytes
    for device, size in needed.items():
        stats = device.memory_stats() or {}
        if size > stats.get("bytes_limit", math.inf) - stats.get("peak_bytes_in_use", 0):
            return False
    return True


def _checked(name: str, leaf: Any, shared: bool) -> None:
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable and not shared:
            raise CheckpointError(
                f"leaf {name!r} is spread over several processes: save it with a team, in all of"
                " them"
            )
        if leaf.is_deleted():
            raise CheckpointError(
                f"leaf {name!r} was donated to a later step: save the state that it returned"
            )
    if not leaves.is_key(leaf.dtype) and not leaves.is_number(np.dtype(leaf.dtype)):
        raise CheckpointError(f"leaf {name!r} has dtype {leaf.dtype}: save numbers only")


def take(state: PyTree, room: np.ndarray | None = None, *, shared: bool = False) -> Snapshot:
    """Copy every leaf, so that the buffers of ``state`` may be donated to the next step.

    The copies are real: on CPU a plain ``np.asarray`` is a view that would block the donation of
    the buffer to the next step, or see that step's numbers. There a copy in memory is the quickest
    way, more so into memory that was used before: new pages cost four times the copy. An
    accelerator copies within its own memory, if there is room, and whoever writes the snapshot
    fetches it while the next steps run.

    Args:
        state: a pytree whose leaves are arrays; typed PRNG keys are copied as their key data.
        room: ``content`` of a former snapshot, used again if it fits.
        shared: whether other processes take theirs, of leaves that are spread over all of them.

    Raises:
        CheckpointError: names a leaf that is no array, has the name of another, was donated, or is
            spread over several processes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> found = take({"dense": (jnp.ones(2), None), "key": jax.random.key(0)})
        >>> found.content[:8].view("float32").tolist()
        [1.0, 1.0]
        >>> found.records["key"]
        {'shape': [], 'dtype': 'key<fry>', 'key_impl': 'threefry2x32', 'offset': 64}
    """
    data, host, device, spread, records = {}, [], {}, {}, {}
    blocks: list[pieces.Piece] = []
    for name, leaf in leaves.named(state).items():
        _checked(name, leaf, shared)
        records[name] = {"shape": list(leaf.shape), "dtype": leaves.dtype_name(leaf.dtype)}
        if leaves.is_key(leaf.dtype):
            records[name]["key_impl"] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated and leaf.size:
                blocks += pieces.take(name, leaf)
                continue
            leaf = leaf.addressable_data(0)
        data[name] = leaf
        if not isinstance(leaf, jax.Array):
            host.append(name)
        elif _is_spread(leaf):
            spread[name] = leaf
        elif _is_in_main_memory(leaf):
            host.append(name)
        else:
            device[name] = leaf.addressable_data(0) if leaf.is_fully_replicated else leaf
    if not _has_room([*device.values(), *spread.values()]):
        for leaf in (waiting := {**device, **spread}).values():
            leaf.copy_to_host_async()
        host, device, spread = [*host, *waiting], {}, {}
    specs = {
        name: (leaf.shape, np.dtype(leaf.dtype))
        for name, leaf in data.items()
        if name not in spread
    }
    offsets, size = packed.layout(specs)
    for name, offset in offsets.items():
        records[name]["offset"] = offset
    content = room if room is not None and room.size == size else np.zeros(size, np.uint8)
    device, spread = (_copies(arrays) if arrays else {} for arrays in (device, spread))
    taken = Snapshot(content, device, spread, records, tuple(blocks))
    for name in host:
        try:
            np.copyto(taken.view(name, data[name]), np.asarray(data[name]))
        except Exception as error:
            raise CheckpointError(f"leaf {name!r} cannot be copied: {cause_line(error)}") from error
    return taken


def _is_spread(leaf: jax.Array) -> bool:
    return not leaf.is_fully_replicated and leaf.size > 0 and sharded.takes(np.dtype(leaf.dtype))


def _is_in_main_memory(leaf: jax.Array) -> bool:
    return next(iter(leaf.devices())).platform == "cpu"
