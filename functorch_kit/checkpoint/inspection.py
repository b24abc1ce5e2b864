"""What checkpoints hold, and how two of them differ, without the code of their model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from functorch_kit.checkpoint import content, publish
from functorch_kit.checkpoint.content import Contents
from functorch_kit.checkpoint.errors import CheckpointError


class Leaf(NamedTuple):
    """One array of a checkpoint.

    Attributes:
        path: its address, such as ``params/head/kernel``.
        shape: of the array.
        dtype: of the array.
        norm: square root of the sum of squares.
        largest: magnitude of its largest number; both are NaN where any number is.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    norm: float
    largest: float


class Difference(NamedTuple):
    """How one leaf differs between two checkpoints.

    Attributes:
        path: its address.
        largest: the largest difference, in units of the leaf's scale (the root mean square of the
            first checkpoint's numbers, or 1 where they are all zero); NaN where one of the two is
            not a number and the other is.
        equal: whether every bit is the same.
        note: why there is no difference to give: it is missing, or of another shape or dtype.
    """

    path: str
    largest: float
    equal: bool
    note: str = ""


def _numbers(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def leaves_of(checkpoint: Contents) -> list[Leaf]:
    """Path, shape, dtype, norm and largest magnitude of every leaf.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit.checkpoint import Store, read
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(7, {"bias": jnp.array([3.0, -4.0])})
        ...     store.wait()
        ...     leaves_of(read(store.folder / "7"))
        [Leaf(path='bias', shape=(2,), dtype='float32', norm=5.0, largest=4.0)]
    """
    found: list[Leaf] = []
    for path, (shape, dtype) in checkpoint.specs.items():
        sizes = np.abs(_numbers(checkpoint[path]))
        norm, largest = math.sqrt(float(np.sum(sizes**2))), float(sizes.max(initial=0.0))
        found.append(Leaf(path, shape, str(dtype), norm, largest))
    return found


def compare(first: Contents, second: Contents) -> list[Difference]:
    """How each leaf of two checkpoints differs, in the order of the first.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit.checkpoint import Store, read
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(1, {"bias": jnp.array([3.0, -3.0]), "step": jnp.int32(1)})
        ...     store.save(2, {"bias": jnp.array([3.0, 0.0]), "step": jnp.int32(1)})
        ...     store.wait()
        ...     for leaf in compare(*(read(store.folder / step) for step in "12")):
        ...         print(leaf.path, leaf.largest, leaf.equal)
        bias 1.0 False
        step 0.0 True
    """
    found: list[Difference] = []
    for path in {**first.specs, **second.specs}:
        here, there = first.specs.get(path), second.specs.get(path)
        if here is None or there is None:
            note = f"only in step {second.step if here is None else first.step}"
            found.append(Difference(path, math.nan, False, note))
        elif here != there:
            (shape, dtype), (other_shape, other_dtype) = here, there
            note = f"{dtype}{list(shape)} against {other_dtype}{list(other_shape)}"
            found.append(Difference(path, math.nan, False, note))
        else:
            a, b = first[path], second[path]
            equal = a.tobytes() == b.tobytes()
            found.append(Difference(path, 0.0 if equal else _largest(a, b), equal))
    return found


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    a, b = _numbers(a), _numbers(b)
    with np.errstate(invalid="ignore"):
        # Equal infinities differ by nothing; two numbers that are none count as the same.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0.0, np.abs(a - b))
        scale = float(np.sqrt(np.mean(np.abs(a) ** 2)))
    return float(apart.max()) / (scale if scale > 0 and math.isfinite(scale) else 1.0)


def status(folder: str | Path) -> dict[int, str]:
    """Every step of a folder of checkpoints: ``verified``, or what is wrong with it.

    Example:
        >>> import tempfile
        >>> from functorch_kit.checkpoint import Store
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(7, {})
        ...     store.wait()
        ...     status(folder)
        {7: 'verified'}
    """
    found: dict[int, str] = {}
    for step, path in publish.steps(Path(folder)).items():
        try:
            content.verified(path, step)
            found[step] = "verified"
        except CheckpointError as error:
            found[step] = str(error)
    return found
