"""What makes a folder believable: a sealed list of each file's size and SHA-256, on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from functorch_kit.checkpoint.errors import CheckpointError

NAME = "manifest.json"


def sync(path: Path) -> None:
    """Force a file or folder to the disk: a rename may reach it before the data that it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(content: dict[str, Any]) -> str:
    body = json.dumps(content, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"sha256": "{digest}",\n"content": {body}}}\n'


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON together with its own SHA-256, and sync it."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(_seal(content))
        file.flush()
        os.fsync(file.fileno())


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote; one changed byte anywhere is an error.

    Raises:
        CheckpointError: the file is missing, unreadable or not byte for byte what was written.
    """
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)["content"]
        # Comparing the whole text, not the digest alone, also catches a flip in white space.
        intact = isinstance(content, dict) and _seal(content) == text
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: use another checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        intact, content = False, {}
    if not intact:
        raise CheckpointError(f"{path} is damaged: use another checkpoint")
    return content


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if not stat.S_ISDIR(path.lstat().st_mode):
            yield path.relative_to(folder).as_posix(), path


def _fingerprint(path: Path, *, synced: bool = False) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if synced:
            os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Fingerprint and sync every file of ``folder``, then the manifest, then every folder.

    Args:
        folder: a finished but not yet published checkpoint.
        facts: JSON values to seal in beside the list of files (step, sequence, marks).
    """
    files = {name: _fingerprint(path, synced=True) for name, path in _entries(folder)}
    write_sealed(folder / NAME, {**facts, "files": files})
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync(path)
    sync(folder)


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file of ``folder`` with its manifest.

    Returns:
        The manifest's content.

    Raises:
        CheckpointError: names the first file that is missing, extra, changed or no plain file.

    Example:
        >>> import pathlib, tempfile
        >>> temporary = tempfile.TemporaryDirectory()
        >>> folder = pathlib.Path(temporary.name)
        >>> _ = (folder / "data").write_bytes(b"1234")
        >>> write(folder, {"step": 7})
        >>> verify(folder)["step"]
        7
        >>> _ = (folder / "data").write_bytes(b"1235")
        >>> try:
        ...     verify(folder)
        ... except CheckpointError as error:
        ...     print(str(error).replace(str(folder), "FOLDER"))
        FOLDER/data is damaged (another SHA-256 than its manifest says): use another checkpoint
        >>> temporary.cleanup()
    """
    content = read_sealed(folder / NAME)
    present = dict(_entries(folder))
    present.pop(NAME, None)
    listed = content["files"]
    for name in sorted(listed.keys() - present.keys()):
        raise CheckpointError(f"{folder / name} is missing: use another checkpoint")
    for name in sorted(present.keys() - listed.keys()):
        raise CheckpointError(f"{folder / name} is not in the manifest: remove it")
    for name, path in present.items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise CheckpointError(f"{path} is no plain file: use another checkpoint")
        try:
            found = _fingerprint(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        if found["bytes"] != listed[name]["bytes"]:
            what = f"{found['bytes']} bytes, {listed[name]['bytes']} were written"
            raise CheckpointError(f"{path} is damaged ({what}): use another checkpoint")
        if found["sha256"] != listed[name]["sha256"]:
            what = "another SHA-256 than its manifest says"
            raise CheckpointError(f"{path} is damaged ({what}): use another checkpoint")
    return content
