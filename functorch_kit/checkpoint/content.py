"""What one step's folder holds: the leaves, and a manifest that says what they are."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit import __version__
from functorch_kit.checkpoint import leaves, manifest, packed, pieces, sharded
from functorch_kit.checkpoint.errors import CheckpointError, Damaged
from functorch_kit.checkpoint.snapshot import Snapshot

_FORMAT = 2
_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "functorch_kit": __version__}
    return versions | {name: importlib.metadata.version(name) for name in _PACKAGES}


def write(
    folder: Path,
    snapshot: Snapshot,
    facts: Mapping[str, Any],
    others: tuple[Path, int] | None = None,
) -> None:
    """Fill an unpublished folder, and seal it.

    Args:
        folder: an empty one.
        snapshot: what to save.
        facts: JSON values to keep in the manifest beside what is written here.
        others: where several processes write their pieces, and how many they are; this is one.
    """
    known = {}
    snapshot.fetch()
    if snapshot.content.size:
        known[packed.NAME] = packed.write(folder / packed.NAME, snapshot.content)
    if snapshot.spread:
        sharded.write(folder / sharded.NAME, snapshot.spread)
    if others is not None:
        pieces.write(others[0], 0, snapshot.blocks)
        known |= pieces.collect(*others, folder)
    record = {"format": _FORMAT, **facts, "versions": _versions(), "leaves": snapshot.records}
    manifest.write(folder, record, known)


def sealed(folder: Path, step: int | None = None) -> dict[str, Any]:
    """The content of a step's manifest; the files that it lists are not looked at.

    Raises:
        Damaged: the manifest is not as it was written, or is that of another step.
        CheckpointError: it has a format of another version.
    """
    record = manifest.read_sealed(folder / manifest.NAME)
    if record.get("format") != _FORMAT:
        raise CheckpointError(
            f"{folder} has format {record.get('format')}, this version reads {_FORMAT}:"
            " read it with the version that wrote it"
        )
    if step is not None and step != record["step"]:
        path = folder / manifest.NAME
        raise Damaged(f"{path} is of step {record['step']}: give the folder its own name back")
    return record


def verified(folder: Path, step: int | None = None) -> dict[str, Any]:
    """As ``sealed``, after every file was compared with what was written."""
    record = sealed(folder, step)
    manifest.verify(folder, record["files"])
    return record


def load(folder: Path, step: int | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest and every array, exactly as recorded: the bytes verified are the ones returned.

    Raises:
        Damaged: a file is not as it was written.
        CheckpointError: it has a format of another version.
    """
    record = sealed(folder, step)
    manifest.verify(folder, record["files"], later={packed.NAME})
    specs = leaves.host_specs(record["leaves"])
    arrays: dict[str, np.ndarray] = {}
    found = np.empty(0, np.uint8)  # of a state without a single number there is no file
    if packed.NAME in record["files"]:
        found = packed.read_verified(folder / packed.NAME, record["files"][packed.NAME])
    for name, (shape, dtype) in specs.items():
        offset = record["leaves"][name].get("offset")
        if offset is not None:
            arrays[name] = packed.leaf(found, offset, shape, dtype)
    if spread := {name: spec for name, spec in specs.items() if name not in arrays}:
        arrays |= _spread(folder, spread)
    return record, arrays


def _spread(folder: Path, specs: leaves.Specs) -> dict[str, np.ndarray]:
    """The leaves that were spread over devices, or over processes."""
    written_by_several = (folder / pieces.NAME).is_dir()
    room = pieces if written_by_several else sharded
    return room.read(folder / room.NAME, specs)


class Contents(Mapping[str, np.ndarray]):
    """The arrays of one checkpoint by their path, each read when it is asked for.

    Attributes:
        folder: where it lies.
        step: its number.
        specs: path -> shape and dtype.
        meta: what it was saved with.
        versions: of Python and the libraries that wrote it.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit.checkpoint import Store
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(0, {"head": {"bias": jnp.ones(2)}}, meta={"model": "mlp"})
        ...     store.wait()
        ...     found = read(store.folder / "0")
        ...     list(found), found["head/bias"], found.meta
        (['head/bias'], array([1., 1.], dtype=float32), {'model': 'mlp'})
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.step = folder, int(record["step"])
        self.specs = leaves.host_specs(record["leaves"])
        self.meta: dict[str, Any] = record["meta"]
        self.versions: dict[str, str] = record["versions"]
        self._leaves = record["leaves"]

    def __getitem__(self, name: str) -> np.ndarray:
        shape, dtype = self.specs[name]
        offset = self._leaves[name].get("offset")
        if offset is None:
            return self._spread[name]
        if 0 in shape:
            return np.zeros(shape, dtype)
        return packed.read_leaf(self.folder / packed.NAME, offset, shape, dtype)

    @functools.cached_property
    def _spread(self) -> dict[str, np.ndarray]:
        specs = {n: spec for n, spec in self.specs.items() if "offset" not in self._leaves[n]}
        return _spread(self.folder, specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


def read(folder: str | Path) -> Contents:
    """Verify one checkpoint and read it without the code of its model.

    Args:
        folder: one step's folder, such as ``runs/digits/checkpoints/500``.

    Returns:
        Leaf path -> array (typed PRNG keys as their key data), each read when it is asked for, with
        the ``meta`` that it was saved with.

    Raises:
        CheckpointError: the folder is no checkpoint, or names the file that is damaged.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from functorch_kit.checkpoint import Store
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(0, {"head": {"bias": jnp.ones(2)}}, meta={"model": "mlp"})
        ...     store.wait()
        ...     found = read(store.folder / "0")
        ...     found.specs, found.meta
        ({'head/bias': ((2,), dtype('float32'))}, {'model': 'mlp'})
    """
    folder = Path(folder)
    return Contents(folder, verified(folder))
