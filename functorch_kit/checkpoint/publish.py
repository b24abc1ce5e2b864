"""Steps in a folder: published by one rename, marked, retired; a crash leaves no half step.

``<step>/`` is a published checkpoint, ``.tmp-*`` unfinished or retired, ``.old-<step>`` the former
content of a step that is being replaced, ``marks.json`` the names (latest, best) and their steps.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from functorch_kit.checkpoint import manifest
from functorch_kit.checkpoint.errors import CheckpointError

_MARKS = "marks.json"
_STEP = re.compile(r"(\.old-)?(0|[1-9][0-9]*)")
_counter = itertools.count()


class Marks(NamedTuple):
    """Names that keep a step from being retired, as of the ``sequence``-th publication."""

    sequence: int
    names: dict[str, int]


def steps(folder: Path) -> dict[int, Path]:
    """Published steps in rising order, and where each lies."""
    found: dict[int, Path] = {}
    try:
        entries = sorted(folder.iterdir(), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        entries = []
    for path in entries:
        match = _STEP.fullmatch(path.name)
        # In sorted order ".old-7" comes before "7", so reversed: "7" is met first and wins.
        if match and path.is_dir():
            found.setdefault(int(match[2]), path)
    return dict(sorted(found.items()))


def marks(folder: Path) -> Marks:
    """The newest marks that can be believed.

    Every manifest also carries the marks as of its own publication. So the rename alone commits a
    step and its marks: a crash before marks.json is written, or a damaged one, loses nothing.
    """
    published = steps(folder)
    newest = Marks(0, {})
    sealed = [folder / _MARKS, *(path / manifest.NAME for path in published.values())]
    for path in sealed:
        try:
            content = manifest.read_sealed(path)
        except CheckpointError:
            continue
        if content["sequence"] > newest.sequence:
            newest = Marks(content["sequence"], content["marks"])
    names = {name: step for name, step in newest.names.items() if step in published}
    if published:
        names.setdefault("latest", max(published))
    return Marks(newest.sequence, names)


def _temporary(folder: Path, what: str) -> Path:
    return folder / f".tmp-{what}-{os.getpid()}-{next(_counter)}"


def prepare(folder: Path) -> None:
    """Open ``folder`` for writing: create it, put back or remove what a crashed writer left."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        manifest.sync(folder.parent)
    for path in list(folder.iterdir()):
        if path.name.startswith(".old-"):
            final = folder / path.name.removeprefix(".old-")
            if final.exists():
                path = path.rename(_temporary(folder, "old"))
            else:
                path.rename(final)
        if path.name.startswith(".tmp-"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def publish(folder: Path, step: int, names: list[str], fill: Callable[[Path], None]) -> None:
    """Write a checkpoint to a temporary folder, sync it, and give it its name in one rename.

    Args:
        folder: the store's folder, prepared.
        step: the number that becomes the folder's name.
        names: marks to move to this step.
        fill: writes the content into the folder that it is given.

    Raises:
        OSError: anything the operating system refuses; what was published stays as it was.
    """
    before = marks(folder)
    after = Marks(before.sequence + 1, {**before.names, **dict.fromkeys(names, step)})
    facts = {"step": step, "sequence": after.sequence, "marks": after.names}
    final, former = folder / str(step), folder / f".old-{step}"
    temporary = _temporary(folder, str(step))
    temporary.mkdir()
    try:
        fill(temporary)
        manifest.write(temporary, facts)
        if final.exists():
            if former.exists():  # of a replacement that failed after its rename
                _remove(former)
            final.rename(former)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if former.exists() and not final.exists():
            former.rename(final)
        raise
    manifest.sync(folder)
    written = _temporary(folder, "marks")
    manifest.write_sealed(written, {"sequence": after.sequence, "marks": after.names})
    written.replace(folder / _MARKS)
    manifest.sync(folder)
    if former.exists():
        _remove(former)


def retire(folder: Path) -> None:
    """Remove the steps that no mark names."""
    kept = set(marks(folder).names.values())
    for step, path in steps(folder).items():
        if step not in kept:
            _remove(path)


def _remove(path: Path) -> None:
    # Renamed first: a crash in the middle of the removal must not leave half a step under its name.
    shutil.rmtree(path.rename(_temporary(path.parent, f"gone-{path.name}")))
