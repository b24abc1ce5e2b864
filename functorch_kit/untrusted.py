"""Files from elsewhere, read within bounds: no links, no surprises of size, JSON and nothing else.

What is read here is data. None of it is run, and nothing it says is believed before it is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from functorch_kit.errors import UserError

MOST_JSON = 4 << 20
"""Bytes of JSON that are parsed: as Python objects they take up to thirty times as much."""


class FileError(UserError, ValueError):
    """A file that cannot be believed or used; the message is one line that names it and why.

    Example:
        >>> issubclass(FileError, ValueError)
        True
    """


def read_plain(
    path: str | Path, *, size: int | None = None, sha256: str | None = None, most: int | None = None
) -> np.ndarray:
    """The bytes of a plain file, read once: what was checked is what is used.

    Args:
        path: of the file; a link, a pipe or a device is refused.
        size: the bytes that it must have; None: any number.
        sha256: of its bytes, in hexadecimal digits; None: any.
        most: bytes that it may have at most; None: what fits in this machine's memory.

    Returns:
        Bytes (size,), uint8, in memory of their own.

    Raises:
        FileError: it is not there, no plain file, of another size, or not what was written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "data"
        >>> _ = path.write_bytes(b"abc")
        >>> read_plain(path, size=3).tobytes()
        b'abc'
        >>> try:
        ...     read_plain(path, size=4)
        ... except FileError as error:
        ...     print(str(error).rpartition("/")[2])
        data' has 3 bytes, and 4 were written: it is damaged, fetch or export it again
    """
    name = repr(str(path))
    with _opened(path, name) as handle:
        there = os.fstat(handle).st_size
        if size is not None and there != size:
            raise FileError(
                f"file {name} has {there} bytes, and {size} were written: it is damaged,"
                " fetch or export it again"
            )
        if there > (limit := _memory() if most is None else most):
            raise FileError(f"file {name} has {there} bytes, and {limit} are read at most")
        try:
            content = np.empty(there, np.uint8)
        except MemoryError as error:
            raise FileError(f"file {name} has {there} bytes, more than there is memory") from error
        rest = content.data
        with open(handle, "rb", buffering=0, closefd=False) as file:
            while rest and (count := file.readinto(rest)):
                rest = rest[count:]
    if rest:
        raise FileError(f"file {name} became shorter while it was read: read it again")
    if sha256 is not None and hashlib.sha256(content.data).hexdigest() != sha256:
        raise FileError(
            f"file {name} is not what was written (another SHA-256): it is damaged,"
            " fetch or export it again"
        )
    return content


def parse_json(content: np.ndarray | bytes, what: str) -> Any:
    """Plain values from JSON text, strictly: no name twice, no NaN, no depth that ends Python.

    Args:
        content: UTF-8, ``MOST_JSON`` bytes at most.
        what: what it is, for messages.

    Raises:
        FileError: it is too long or no such text.

    Example:
        >>> parse_json(b'{"a": [1, 2.5]}', "the header")
        {'a': [1, 2.5]}
        >>> try:
        ...     parse_json(b'{"a": 1, "a": 2}', "the header")
        ... except FileError as error:
        ...     print(error)
        the header cannot be read: the name 'a' stands in it twice
    """
    if len(content) > MOST_JSON:
        raise FileError(f"{what} has {len(content)} bytes, and {MOST_JSON} are read at most")
    try:
        return json.loads(
            bytes(content).decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_number,
        )
    except RecursionError:
        raise FileError(f"{what} cannot be read: it is nested too deep") from None
    except ValueError as error:  # of JSON, of UTF-8, of numbers of thousands of digits
        reason = " ".join(str(error).split())[:100]
        raise FileError(f"{what} cannot be read: {reason}") from None


@contextlib.contextmanager
def _opened(path: str | Path, name: str) -> Iterator[int]:
    # Opening a pipe would wait for its writer for ever, unless asked not to.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileError(f"file {name} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        if os.path.islink(path):
            raise FileError(f"file {name} is a link: put the file itself there") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"file {name} cannot be read: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileError(f"file {name} is no plain file: give one that is")
        yield handle
    except OSError as error:
        raise FileError(f"file {name} cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)


def _memory() -> int:
    """Bytes of memory of this machine; where it does not say, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 50


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:60]!r} stands in it twice")
        found[name] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON's")
