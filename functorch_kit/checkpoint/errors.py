"""The exceptions of this room."""

from __future__ import annotations

from functorch_kit.errors import UserError

_SHOWN = 200


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be written, found, believed, or fitted to the state that was asked for.

    The message is one line that names the folder, file or leaf, and the remedy.

    Example:
        >>> from functorch_kit.checkpoint import Store
        >>> try:
        ...     Store("no/such/folder").restore(3, like={})
        ... except CheckpointError as error:
        ...     print(str(error).rpartition("/")[2])
        folder holds no checkpoint of step 3: it has none at all
    """


class Damaged(CheckpointError):
    """A checkpoint is not byte for byte what was written; names the first file that is not."""


class Locked(CheckpointError):
    """Another process writes here; names the process, its host, and since when."""


def cause_line(error: BaseException) -> str:
    """The root cause of ``error`` in one line: Orbax wraps the system's own words in layers."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())
    if len(words) > 2 * _SHOWN:  # the reason stands at the end, after long paths
        words = f"{words[:_SHOWN]} … {words[-_SHOWN:]}"
    return f"{type(error).__name__}: {words}"
