"""What makes a folder believable: a sealed list of each file's size and SHA-256, on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from functorch_kit.checkpoint.errors import CheckpointError, Damaged

NAME = "manifest.json"


def sync(path: Path) -> None:
    """Force a file or folder to the disk: a rename may reach it before the data that it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(content: dict[str, Any]) -> str:
    # A line for each entry: a person can read it, and json's own indenting takes ten times as long.
    entries = ",\n".join(f"{json.dumps(key)}: {json.dumps(v)}" for key, v in content.items())
    body = f"{{\n{entries}\n}}"
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
        Damaged: the file is missing, unreadable or not byte for byte what was written.
    """
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)["content"]
        # Comparing the whole text, not the digest alone, also catches a flip in white space.
        intact = isinstance(content, dict) and _seal(content) == text
    except FileNotFoundError:
        raise Damaged(f"{path} is missing: use another checkpoint") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        intact, content = False, {}
    if not intact:
        raise Damaged(f"{path} is damaged: use another checkpoint")
    return content


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    # What may not be read need not be damaged: nobody goes on from an older step because of it.
    if isinstance(error, PermissionError):
        return CheckpointError(f"{path} cannot be read: {error.strerror}: ask for permission")
    return Damaged(f"{path} cannot be read: {error.strerror}: use another checkpoint")


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


def write(
    folder: Path, facts: dict[str, Any], known: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Fingerprint and sync every file of ``folder``, then the manifest, then every folder.

    Args:
        folder: a finished but not yet published checkpoint.
        facts: JSON values to seal in beside the list of files.
        known: fingerprints of files that are synced already.
    """
    known = known or {}
    files = {
        name: known.get(name) or _fingerprint(path, synced=True) for name, path in _entries(folder)
    }
    write_sealed(folder / NAME, {**facts, "files": files})
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync(path)
    sync(folder)


def verify(
    folder: Path, listed: Mapping[str, Mapping[str, Any]], later: Container[str] = ()
) -> None:
    """Compare every file of ``folder`` with its manifest.

    Args:
        folder: a published checkpoint.
        listed: what the manifest says of its files.
        later: files whose bytes the caller compares itself when it reads them; here their size.

    Raises:
        Damaged: names the first file that is missing, extra, changed or no plain file.

    Example:
        >>> import pathlib, tempfile
        >>> temporary = tempfile.TemporaryDirectory()
        >>> folder = pathlib.Path(temporary.name)
        >>> _ = (folder / "data").write_bytes(b"1234")
        >>> write(folder, {"step": 7})
        >>> content = read_sealed(folder / NAME)
        >>> verify(folder, content["files"])
        >>> _ = (folder / "data").write_bytes(b"1235")
        >>> try:
        ...     verify(folder, content["files"])
        ... except CheckpointError as error:
        ...     print(str(error).replace(str(folder), "FOLDER"))
        FOLDER/data is damaged (another SHA-256 than its manifest says): use another checkpoint
        >>> temporary.cleanup()
    """
    present = dict(_entries(folder))
    present.pop(NAME, None)
    for name in sorted(listed.keys() - present.keys()):
        raise Damaged(f"{folder / name} is missing: use another checkpoint")
    for name in sorted(present.keys() - listed.keys()):
        raise Damaged(f"{folder / name} is not in the manifest: remove it")
    for name, path in present.items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Damaged(f"{path} is no plain file: use another checkpoint")
        if (size := path.lstat().st_size) != listed[name]["bytes"]:
            what = f"{size} bytes, {listed[name]['bytes']} were written"
            raise Damaged(f"{path} is damaged ({what}): use another checkpoint")
        if name in later:
            continue
        try:
            found = _fingerprint(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if found["sha256"] != listed[name]["sha256"]:
            what = "another SHA-256 than its manifest says"
            raise Damaged(f"{path} is damaged ({what}): use another checkpoint")
