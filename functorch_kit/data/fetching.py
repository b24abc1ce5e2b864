"""A file from the network: only where it is asked for, checked, and resumed."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import first_line

_PIECE = 1 << 20


def fetch(url: str, path: str | Path, *, sha256: str, timeout: float = 30.0) -> Path:
    """Bring a file here, unless it is here already.

    Nothing in this package calls it: data are fetched by whoever wants them. What came before the
    connection broke is kept beside the file, as ``<name>.part``, and the next call goes on from
    there. The file appears under its name only when its sum is right.

    Args:
        url: ``https://`` or ``http://``.
        path: where the file is to be.
        sha256: the sum that the file must have, 64 hexadecimal digits.
        timeout: seconds without a byte after which the connection counts as broken.

    Returns:
        The path.

    Raises:
        DataError: no network, an answer that is no file, a wrong sum, or no room.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_bytes(b"abc")
        >>> known = hashlib.sha256(b"abc").hexdigest()
        >>> fetch("https://example.invalid/a.txt", path, sha256=known).name  # it is here already
        'a.txt'
    """
    path = Path(path)
    wanted = sha256.lower()
    if len(wanted) != 64 or not set(wanted) <= set("0123456789abcdef"):
        raise DataError(f"sha256 is {sha256!r}: give 64 hexadecimal digits")
    if not url.startswith(("https://", "http://")):
        raise DataError(f"url is {url!r}: give one that begins with https://")
    if path.is_file():
        if _sum(path) == wanted:
            return path
        raise DataError(
            f"file {str(path)!r} is not the one that was asked for: its SHA-256 is {_sum(path)};"
            " remove it, or give another path"
        )
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, timeout)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url} cannot be fetched: the server says {error.code}") from error
    except (http.client.HTTPException, OSError) as error:
        got = part.stat().st_size if part.exists() else 0
        reason = first_line(error)
        raise DataError(
            f"{url} cannot be fetched ({reason}): {got} bytes are kept; call again when there is a"
            f" network, or put the file at {str(path)!r} by hand"
        ) from error
    if (found := _sum(part)) != wanted:
        part.unlink()
        raise DataError(f"{url} has the SHA-256 {found}, not {wanted}: it was not kept")
    part.replace(path)
    return path


def _receive(url: str, part: Path, timeout: float) -> None:
    begin = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begin:
            return  # all of it is here: the sum says whether it is right
        raise
    with answer, part.open("ab") as file:
        if answer.status != 206:  # the server begins at the beginning
            file.truncate(0)
        expected = answer.headers.get("Content-Length")
        received = 0
        while piece := answer.read(_PIECE):
            file.write(piece)
            received += len(piece)
        if expected is not None and received < int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - received)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
