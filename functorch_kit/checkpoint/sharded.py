"""The only file that speaks to Orbax: leaves that are spread over devices, to a folder and back.

Each device's part is a chunk of its own, so that no array is ever gathered in one place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np

from functorch_kit.checkpoint.errors import Damaged, cause_line

NAME = "sharded"


def takes(dtype: np.dtype) -> bool:
    """Whether Orbax stores this dtype bit for bit."""
    return dtype.isbuiltin == 1 or dtype.name == "bfloat16"


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


def write(folder: Path, arrays: Mapping[str, jax.Array]) -> None:
    """Write named arrays, of which nobody else holds the buffers, with Orbax.

    Args:
        folder: where to; must not exist.
        arrays: name -> array, none of them empty (Orbax refuses those).
    """
    from orbax.checkpoint import v1 as ocp

    with _configured():
        ocp.save(str(folder), {_encoded(name): value for name, value in arrays.items()})


def read(
    folder: Path, expected: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> dict[str, np.ndarray]:
    """Read back exactly the arrays that were written, whatever devices there are now.

    Args:
        folder: what ``write`` filled.
        expected: name -> shape and dtype of every array.

    Returns:
        Name -> array with exactly that shape and dtype.

    Raises:
        Damaged: Orbax cannot read the folder, or it holds something else.
    """
    from orbax.checkpoint import v1 as ocp

    # Asked for as NumPy: as JAX arrays, Orbax would look for the devices that they were saved from.
    like = {_encoded(name): np.empty(shape, dtype) for name, (shape, dtype) in expected.items()}
    try:
        with _configured():
            stored: dict[str, Any] = ocp.load(str(folder), like)
    except Exception as error:
        raise Damaged(f"{folder} cannot be read: {cause_line(error)}") from error
    arrays = {}
    for name, (shape, dtype) in expected.items():
        value = np.asarray(stored.get(_encoded(name), ()))
        if value.shape != shape or value.dtype != dtype:
            raise Damaged(f"{folder} lacks leaf {name!r} as recorded: use another checkpoint")
        arrays[name] = value
    return arrays
