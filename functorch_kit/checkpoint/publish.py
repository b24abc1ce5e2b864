"""Steps in a folder: published by one rename, retired, set aside; a crash leaves no half step.

``<step>/`` is a published checkpoint, ``.tmp-*`` unfinished or retired, ``.old-<step>`` the former
content of a step that is being replaced, ``<step>.damaged`` one that was found not to be as it was
written. Which step is the latest and which the best follows from the manifests alone.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from functorch_kit.checkpoint import content, manifest, pieces
from functorch_kit.checkpoint.errors import Damaged
from functorch_kit.checkpoint.retention import Entry

_STEP = re.compile(r"(\.old-)?(0|[1-9][0-9]*)")
_counter = itertools.count()


def steps(folder: Path) -> dict[int, Path]:
    """Published steps in rising order, and where each lies; whether they verify is not asked."""
    found: dict[int, Path] = {}
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    for name in names:
        match = _STEP.fullmatch(name)
        # In sorted order ".old-7" comes before "7", so reversed: "7" is met first and wins.
        if match and (folder / name).is_dir():
            found.setdefault(int(match[2]), folder / name)
    return dict(sorted(found.items()))


def entry(path: Path, step: int) -> Entry:
    """What the manifest of a published step says of it.

    Raises:
        CheckpointError: it cannot be believed.
    """
    record = content.sealed(path, step)
    score = None if record["score"] is None else float(record["score"])
    return Entry(path, record["sequence"], score, record["pinned"])


def entries(folder: Path) -> dict[int, Entry]:
    """The published steps whose manifest can be believed."""
    found: dict[int, Entry] = {}
    for step, path in steps(folder).items():
        try:
            found[step] = entry(path, step)
        except Damaged:
            continue
    return found


def _temporary(folder: Path, what: str) -> Path:
    return folder / f".tmp-{what}-{os.getpid()}-{next(_counter)}"


def make(folder: Path) -> None:
    """Create the folder, and those above it, so that a power loss does not take them back."""
    missing = itertools.takewhile(lambda path: not path.is_dir(), [folder, *folder.parents])
    for path in reversed(list(missing)):
        path.mkdir(exist_ok=True)
        manifest.sync(path.parent)


def prepare(folder: Path, damaged: Iterable[int] = (), team: str = "") -> dict[int, Entry]:
    """Open ``folder`` for writing: put back or remove what a crashed writer left.

    Args:
        folder: it exists, and no other process writes to it.
        damaged: steps that were found to be, and shall be set aside.
        team: the name of the processes that write here; pieces of others are of nobody any more.

    Returns:
        The published steps. Those whose manifest cannot be believed are set aside: no later save
        of their step may meet them, and nothing is lost.
    """
    for name in os.listdir(folder):
        path = folder / name
        begins = pieces.BEGINS
        if name.startswith(begins) and not (team and name.startswith(f"{begins}{team}-")):
            path = path.rename(_temporary(folder, "pieces"))
        if name.startswith(".old-"):
            final = folder / name.removeprefix(".old-")
            if final.exists():
                path = path.rename(_temporary(folder, "old"))
            else:
                path.rename(final)
        if path.name.startswith(".tmp-"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    published, known = steps(folder), entries(folder)
    for step, path in published.items():
        if step not in known or step in damaged:
            _set_aside(path)
            known.pop(step, None)
    return known


def _set_aside(path: Path) -> None:
    target = path.with_name(f"{path.name}.damaged")
    for number in itertools.count(2):
        if not target.exists():
            break
        target = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(target)
    manifest.sync(path.parent)


def publish(folder: Path, step: int, fill: Callable[[Path], None]) -> None:
    """Write a checkpoint to a temporary folder, and give it its name in one rename.

    Args:
        folder: the store's folder, prepared.
        step: the number that becomes the folder's name.
        fill: writes, syncs and seals the content of the folder that it is given.

    Raises:
        OSError: anything the operating system refuses; what was published stays as it was.
    """
    final, former = folder / str(step), folder / f".old-{step}"
    temporary = _temporary(folder, str(step))
    temporary.mkdir()
    try:
        fill(temporary)
        if final.exists():
            if former.exists():  # of a replacement that failed after its rename
                remove(former)
            final.rename(former)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if former.exists() and not final.exists():
            former.rename(final)
        raise
    manifest.sync(folder)
    if former.exists():
        remove(former)


def remove(path: Path) -> None:
    """Remove a step, renamed first: a crash half-way must not leave half of it under its name."""
    shutil.rmtree(path.rename(_temporary(path.parent, f"gone-{path.name}")))
