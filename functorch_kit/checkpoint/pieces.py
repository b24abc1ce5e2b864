"""A state that is spread over processes: each writes its own pieces, and one publishes them all.

No process ever holds, or sends, what is another's. The processes see one file system, and wait for
each other through it, so that a save needs no devices and disturbs no step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from functorch_kit.checkpoint import manifest
from functorch_kit.checkpoint.errors import CheckpointError, Damaged, cause_line

NAME = "pieces"
BEGINS = ".pieces-"
"""Begins the name of a folder in which several processes write what makes up one checkpoint."""
_POLL_SECONDS = 0.01
_ALIGNMENT = 64


class Piece(NamedTuple):
    """A block of one leaf.

    Attributes:
        leaf: its path.
        start: where the block begins, on each axis.
        content: a copy of its numbers.
    """

    leaf: str
    start: tuple[int, ...]
    content: np.ndarray


class Together:
    """The saves of one process, or those that several make together.

    Args:
        folder: the store's.
        team: the processes; see ``distributed.Team``. One alone if None.

    Attributes:
        count: how many processes there are.
        publishes: whether this is the one that publishes.
        name: of the team; empty for one process.
    """

    def __init__(self, folder: Path, team: Any):
        self.count, self.publishes, self.name, self._index = 1, True, "", 0
        if team is not None and team.count > 1:
            self.count, self.publishes, self.name = team.count, team.is_main, team.name
            self._index: int = team.index
        self._folder, self._saves = folder, 0

    @property
    def _here(self) -> Path:
        return self._folder / f"{BEGINS}{self.name}-{self._saves}"

    def begun(self) -> tuple[Path, int] | None:
        """A save begins: where all write, and how many they are; None for one process."""
        self._saves += 1
        return None if self.count == 1 else (self._here, self.count)

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write this process's pieces, or say to those who wait for them that it cannot."""
        try:
            write(self._here, self._index, pieces)
        except BaseException as error:
            with contextlib.suppress(OSError):
                failed(self._here, self._index, cause_line(error))
            raise


def take(name: str, array: jax.Array) -> list[Piece]:
    """The blocks of a leaf that this process has to write: of each block, one process's copy.

    Example:
        >>> [piece.start for piece in take("w", jax.numpy.ones((2, 3)))]
        [(0, 0)]
    """
    return [
        Piece(name, tuple(_starts(shard.index, array.shape)), np.array(shard.data))
        for shard in array.addressable_shards
        if shard.replica_id == 0
    ]


def write(folder: Path, process: int, pieces: Sequence[Piece]) -> None:
    """Write and sync one process's pieces; the list of them, written last, says that all is there.

    Args:
        folder: shared by all processes; made if missing.
        process: the number of this one.
        pieces: see ``take``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    offset, digest = 0, hashlib.sha256()
    with open(folder / f"{process}.bin", "wb") as file:
        for piece in pieces:
            content = np.ascontiguousarray(piece.content).reshape(-1).view(np.uint8)
            padding = bytes(-offset % _ALIGNMENT)
            offset += len(padding)
            for part in (padding, content.data):
                file.write(part)
                digest.update(part)
            shape = list(piece.content.shape)
            listed.append(
                {"leaf": piece.leaf, "start": list(piece.start), "shape": shape, "offset": offset}
            )
            offset += content.size
        file.flush()
        os.fsync(file.fileno())
    draft = folder / f"{process}.json.part"
    record = {"pieces": listed, "bytes": offset, "sha256": digest.hexdigest()}
    with open(draft, "w", encoding="utf-8") as text:
        json.dump(record, text)
        text.flush()
        os.fsync(text.fileno())
    draft.rename(folder / f"{process}.json")


def failed(folder: Path, process: int, cause: str) -> None:
    """Say that a process could not write its pieces, so that nobody waits for them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{process}.failed").write_text(cause, encoding="utf-8")


def collect(folder: Path, processes: int, target: Path) -> dict[str, dict[str, Any]]:
    """Wait for the pieces of all processes, and take them into a checkpoint.

    Args:
        folder: where they write.
        processes: how many there are.
        target: the checkpoint's folder, unpublished.

    Returns:
        Name -> size and SHA-256 of each file of numbers, as their writers hashed them.

    Raises:
        CheckpointError: a process could not write its own.
    """
    waiting = set(range(processes))
    while waiting:
        for process in sorted(waiting):
            if (folder / f"{process}.failed").exists():
                cause = (folder / f"{process}.failed").read_text(encoding="utf-8")
                raise CheckpointError(f"process {process} could not write its part: {cause}")
            if (folder / f"{process}.json").exists():
                waiting.discard(process)
        if waiting:
            time.sleep(_POLL_SECONDS)
    folder.rename(target / NAME)
    known = {}
    for process in range(processes):
        record = json.loads((target / NAME / f"{process}.json").read_text(encoding="utf-8"))
        sizes = {"bytes": record["bytes"], "sha256": record["sha256"]}
        known[f"{NAME}/{process}.bin"] = sizes
    manifest.sync(target)
    return known


def read(
    folder: Path, expected: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> dict[str, np.ndarray]:
    """Put the leaves together again, however many processes have written them.

    Args:
        folder: what ``collect`` filled; its files have been verified.
        expected: name -> shape and dtype of every leaf.

    Raises:
        Damaged: the pieces do not make up exactly these leaves.
    """
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in expected.items()}
    missing = {name: array.size for name, array in arrays.items()}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        content = np.memmap(path.with_suffix(".bin"), np.uint8, "r") if record["bytes"] else b""
        for each in record["pieces"]:
            name, shape = each["leaf"], tuple(each["shape"])
            if name not in arrays:
                raise Damaged(f"{path} lists leaf {name!r}, which is none: use another checkpoint")
            array = arrays[name]
            size = int(np.prod(shape, dtype=np.int64))
            first = each["offset"]
            found = np.asarray(content[first : first + size * array.dtype.itemsize])
            place = tuple(slice(a, a + n) for a, n in zip(each["start"], shape, strict=True))
            array[place] = found.view(array.dtype).reshape(shape)
            missing[name] -= size
    for name, count in missing.items():
        if count:
            raise Damaged(f"{folder} lacks a part of leaf {name!r}: use another checkpoint")
    return arrays


def _starts(index: tuple[slice, ...], shape: tuple[int, ...]) -> list[int]:
    return [part.indices(size)[0] for part, size in zip(index, shape, strict=True)]
