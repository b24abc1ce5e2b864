"""The only file that speaks to Orbax: a flat dict of host arrays to a folder, and back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from functorch_kit.checkpoint.errors import CheckpointError, cause_line


def _is_foreign(dtype: np.dtype) -> bool:
    # bfloat16, float8, int4, swapped bytes: TensorStore knows some of them, their bits are safe.
    return dtype.isbuiltin != 1


def _bits(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _encoded(name: str) -> str:
    """A leaf's path as a key for Orbax: ``head/kernel`` becomes ``leaf.head.kernel``.

    A key may not be a path of its own: OCDBT takes ``a//b`` and ``a/b`` for one array, and the last
    one written would be read for both. No two paths have the same key.
    """
    return "leaf." + quote(name, safe="/").replace(".", "%2E").replace("/", ".")


@contextlib.contextmanager
def _configured() -> Iterator[None]:
    from orbax.checkpoint import v1 as ocp

    options = ocp.Context()
    # Weights hardly compress, and zarr2 took a quarter less CPU than zarr3; OCDBT keeps hundreds of
    # leaves in a dozen files instead of two for each leaf.
    options.array.saving.use_ocdbt = True
    options.array.saving.use_zarr3 = False
    options.array.saving.use_compression = False
    # The arrays are private copies already.
    options.memory.deepcopy_host_arrays = False
    # A failure is raised, so that Orbax need not also print it with the traceback of each thread.
    logger = logging.getLogger("absl")
    logger.addFilter(_is_not_orbax)
    try:
        with options:
            yield
    finally:
        logger.removeFilter(_is_not_orbax)


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays with Orbax; foreign dtypes as their bits, empty arrays not at all.

    Args:
        folder: where to; must not exist.
        arrays: name -> C-contiguous array. Orbax refuses empty arrays and an empty dict: of those
            shape and dtype say everything, and the caller records them.
    """
    from orbax.checkpoint import v1 as ocp

    stored = {
        _encoded(name): value.view(_bits(value.dtype)) if _is_foreign(value.dtype) else value
        for name, value in arrays.items()
        if value.size
    }
    if stored:
        with _configured():
            ocp.save(str(folder), stored)


def read(
    folder: Path, expected: dict[str, tuple[tuple[int, ...], np.dtype]]
) -> dict[str, np.ndarray]:
    """Read back exactly the arrays that were written.

    Args:
        folder: what ``write`` filled.
        expected: name -> shape and dtype of every array, empty ones included.

    Returns:
        Name -> array with exactly that shape and dtype.

    Raises:
        CheckpointError: Orbax cannot read the folder, or holds something else.
    """
    stored: dict[str, Any] = {}
    if any(np.prod(shape) for shape, _ in expected.values()):
        from orbax.checkpoint import v1 as ocp

        try:
            with _configured():
                stored = ocp.load(str(folder))
        except Exception as error:
            raise CheckpointError(f"{folder} cannot be read: {cause_line(error)}") from error
    arrays = {}
    for name, (shape, dtype) in expected.items():
        if not np.prod(shape):
            arrays[name] = np.zeros(shape, dtype)
            continue
        value = np.asarray(stored.get(_encoded(name), ()))
        native = _bits(dtype) if _is_foreign(dtype) else dtype
        if value.shape != shape or value.dtype != native:
            raise CheckpointError(f"{folder} lacks leaf {name!r} as recorded: it is damaged")
        arrays[name] = value.view(dtype) if native != dtype else value
    return arrays
