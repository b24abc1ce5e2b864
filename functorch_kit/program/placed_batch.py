"""A batch split over devices, everything else on all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from functorch_kit.program.carrying import Arguments, Threading
from functorch_kit.program.specs import argument_names, leaf_names
from functorch_kit.program.switches import ComparisonError
from functorch_kit.types import PyTree


class BatchPlacement:
    """Where the arguments of a data-parallel step lie.

    Args:
        devices: over how many devices the batch is split.
        batch: position of the argument whose leaves are split along their first axis.

    Raises:
        ComparisonError: there are not so many devices.

    Example:
        >>> import jax.numpy as jnp
        >>> weights, x = BatchPlacement(1, batch=1).place((jnp.ones(3), jnp.ones((4, 3))))
        >>> x.sharding.spec == PartitionSpec("data"), weights.sharding.spec == PartitionSpec()
        (True, True)
    """

    def __init__(self, devices: int, batch: int) -> None:
        present = jax.devices()
        if len(present) < devices:
            raise ComparisonError(
                f"variants: 'sharded={devices}' needs {devices} devices, and this process has"
                f" {len(present)}: {_remedy(present[0].platform, devices)}"
            )
        mesh = Mesh(np.array(present[:devices]), ("data",))
        self.devices = devices
        self.batch = batch
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        self._whole = NamedSharding(mesh, PartitionSpec())

    def check(self, fn: Callable[..., Any], args: Arguments) -> None:
        """Refuse a batch that cannot be split evenly.

        Raises:
            ComparisonError: naming the leaf.
        """
        name = argument_names(fn, len(args))[self.batch]
        for path, leaf in leaf_names(name, args[self.batch]):
            shape = np.shape(leaf)
            if not shape or shape[0] % self.devices:
                raise ComparisonError(
                    f"variants: 'sharded={self.devices}' splits the first axis of {path}, whose"
                    f" shape is {shape}: give a batch that {self.devices} divides"
                )

    def place(self, args: Arguments) -> Arguments:
        """Copies of the arguments, each leaf where it belongs; Python numbers stay as they are."""

        def put(leaf: Any, sharding: NamedSharding) -> Any:
            return jax.device_put(leaf, sharding) if hasattr(leaf, "dtype") else leaf

        return tuple(
            jax.tree.map(
                lambda leaf, where=self._split if index == self.batch else self._whole: put(
                    leaf, where
                ),
                arg,
            )
            for index, arg in enumerate(args)
        )

    def pinned(self, fn: Callable[..., Any], threading: Threading) -> Callable[..., Any]:
        """The function with its carry kept on all devices, whatever the compiler would choose."""

        @functools.wraps(fn)
        def pinned(*args: PyTree) -> PyTree:
            output = fn(*args)
            if threading.carry is None:
                return output
            value, others = threading.split(args, output)
            kept = jax.lax.with_sharding_constraint(value, self._whole)
            return kept if value is output else (kept, *others)

        return pinned


def _remedy(platform: str, devices: int) -> str:
    if platform == "cpu":
        return (
            f"set JAX_NUM_CPU_DEVICES={devices} before Python starts, or"
            f" jax.config.update('jax_num_cpu_devices', {devices}) before JAX's first use"
        )
    return "ask for fewer"
