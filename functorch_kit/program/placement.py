"""Where arrays lie, in a few words, and whether that is where a program was compiled for."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, Sharding


def misplaced(expected: Sharding | None, leaf: Any) -> tuple[str, str] | None:
    """Compare where a leaf lies with where the program wants it.

    An array that was never put on a device on purpose goes wherever it is wanted, as a NumPy array
    does.

    Args:
        expected: the sharding that was compiled for; None if it does not matter.
        leaf: an argument's leaf.

    Returns:
        Where it lies and where it should, in words, or None if nothing is wrong.

    Example:
        >>> here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        >>> misplaced(here, jax.numpy.zeros(3)) is None
        True
    """
    if expected is None or not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
        return None
    if not leaf.committed:
        return None
    if leaf.sharding.is_equivalent_to(expected, leaf.ndim):
        return None
    return in_words(leaf.sharding), in_words(expected)


def in_words(sharding: Sharding) -> str:
    """A sharding in a few words.

    Example:
        >>> in_words(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        'on cpu:0'
    """
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    first = f"{devices[0].platform}:{devices[0].id}"
    if len(devices) == 1:
        return f"on {first}"
    where = f"{len(devices)} devices ({first} … {devices[-1].id})"
    if isinstance(sharding, NamedSharding):
        parts = ", ".join(map(repr, sharding.spec))
        return f"split P({parts}) over {where}" if any(sharding.spec) else f"copied to {where}"
    return f"spread over {where}"
