"""Where text goes: what the stream can show, and writing to it without ever failing a run."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

Stream = Any
"""What has ``write`` and ``flush``: not always a ``TextIO``, think of notebooks and captures."""

# For streams that know ASCII only (LANG=C, some pipes): close enough to read.
_ASCII = str.maketrans({"µ": "u", "·": "-", "–": "-", "—": "-", "×": "x", "→": "->", "…": "..."})


def is_live(stream: Stream) -> bool:
    """Whether a stream is a terminal on which lines can be redrawn, and rich is there to do it.

    Args:
        stream: a text stream.

    Returns:
        False for pipes, files, dumb terminals and machines without rich.

    Example:
        >>> import io
        >>> is_live(io.StringIO())
        False
    """
    try:
        terminal = stream.isatty()
    except (AttributeError, ValueError):
        return False
    if not terminal or os.environ.get("TERM", "") in ("dumb", "unknown"):
        return False
    return importlib.util.find_spec("rich") is not None


def rich_console(stream: Stream) -> Any:
    """A rich console on a stream, without markup: a title may hold square brackets.

    Args:
        stream: a text stream.

    Returns:
        A ``rich.console.Console``; NO_COLOR turns every style off, not the colours alone.

    Example:
        >>> import io
        >>> rich_console(io.StringIO()).is_terminal
        False
    """
    from rich.console import Console

    # rich resolves sys.stdout at each write only when it is given no file; that is what lets a
    # live display catch other people's prints.
    file = None if stream is sys.stdout else stream
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        file=file,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=False,
        color_system=None if plain else "auto",
    )


def write_line(stream: Stream, text: str) -> bool:
    """Write one line and flush it.

    Args:
        stream: a text stream.
        text: the line; characters that the stream's encoding lacks are replaced.

    Returns:
        False where nobody reads any more (a closed pipe, a full disk): the run goes on.

    Example:
        >>> import sys
        >>> write_line(sys.stdout, "step 1")
        step 1
        True
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
