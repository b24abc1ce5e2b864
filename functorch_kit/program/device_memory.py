"""What the device itself says of its memory, where it says anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from functorch_kit.program.executable import Program
from functorch_kit.types import PyTree


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """The most memory that a call of a program needs: as compiled, and as measured.

    Attributes:
        compiled_bytes: what the compiled program states; None where the backend does not.
        measured_bytes: by how much the device's own peak grew beyond what was in use before the
            call, the arguments included; None where ``why`` says so.
        why: why there is nothing measured; empty if there is.
    """

    compiled_bytes: int | None
    measured_bytes: int | None
    why: str

    @property
    def share(self) -> float | None:
        """The measured as a multiple of the compiled."""
        if not self.compiled_bytes or self.measured_bytes is None:
            return None
        return self.measured_bytes / self.compiled_bytes


def memory_use(program: Program, *args: PyTree) -> MemoryUse:
    """Call a program once, and compare the memory it states with what the device reports.

    A device's peak never falls, so it says something of this program only if no larger one ran
    before it in the process; XLA's CPU backend reports none at all.

    Args:
        program: the program.
        *args: its arguments; donated ones are gone afterwards.

    Returns:
        Both figures.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> add = program.compile(lambda x: x + 1, jnp.zeros(1000), name="add")
        >>> memory_use(add, jnp.zeros(1000)).compiled_bytes >= 8000
        True
    """
    leaves = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
    held = sum(_bytes_here(leaf) for leaf in leaves)
    before = memory_in_use()
    jax.block_until_ready(program(*args))
    compiled = program.report.peak_bytes
    if before is None:
        platform = jax.devices()[0].platform
        return MemoryUse(compiled, None, f"a {platform} device does not report its memory")
    grown = new_peak(before)
    if grown is None:
        return MemoryUse(compiled, None, "a larger program ran before this one in the process")
    return MemoryUse(compiled, grown + held, "")


def memory_in_use() -> dict[str, int] | None:
    """The first device's own figures (``bytes_in_use``, ``peak_bytes_in_use`` …), if it has any.

    Example:
        >>> memory_in_use() is None or memory_in_use()["bytes_in_use"] >= 0
        True
    """
    try:
        stats: Any = jax.local_devices()[0].memory_stats()
    except (NotImplementedError, RuntimeError):
        return None
    return stats if stats and {"bytes_in_use", "peak_bytes_in_use"} <= stats.keys() else None


def new_peak(before: dict[str, int] | None) -> int | None:
    """Bytes by which the device's peak rose above what was in use before.

    Args:
        before: what ``memory_in_use`` said then.

    Returns:
        None where the device does not report, or where the peak is an older one.

    Example:
        >>> print(new_peak(None))
        None
    """
    after = memory_in_use()
    if before is None or after is None:
        return None
    if after["peak_bytes_in_use"] <= before["peak_bytes_in_use"]:
        return None
    return after["peak_bytes_in_use"] - before["bytes_in_use"]


def _bytes_here(array: jax.Array) -> int:
    here = jax.local_devices()[0]
    return sum(part.data.nbytes for part in array.addressable_shards if part.device == here)
