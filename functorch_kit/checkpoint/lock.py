"""One writer: a lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
import sys
import weakref
from pathlib import Path
from types import TracebackType

from functorch_kit.checkpoint.errors import CheckpointError, Locked

_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """The right to write in a folder, for one process at a time.

    It is the kernel's lock (``flock``) on the file ``.lock`` in the folder, so it ends with the
    process that holds it, however that dies; the file's content only says who that is. It stays
    where it is: removing it would let a third process lock a new file of that name. Processes
    started by the holder do not inherit it.

    It holds among the processes of one machine. On a network file system it holds among machines
    only if that passes ``flock`` on (NFS since Linux 2.6.12 does, Lustre when mounted with
    ``flock``); on one without locks a line on standard error says that there is none.

    Args:
        folder: made when the lock is taken.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Lock(folder):
        ...     try:
        ...         Lock(folder).acquire()
        ...     except Locked as error:
        ...         print("is written to by process" in str(error))
        True
        >>> with Lock(folder) as lock:
        ...     lock.held
        True
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder).absolute() / ".lock"
        self._handle: int | None = None
        self._finalizer: weakref.finalize | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    def acquire(self) -> None:
        """Take the lock, if this object does not hold it already.

        Raises:
            Locked: another process, or another object in this one, holds it; names the holder.
            CheckpointError: the file cannot be made.
        """
        if self.held:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be made ({error.strerror}):"
                " choose a folder that can be written"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            raise Locked(
                f"{self.path.parent} is written to by {holder}: wait for it or stop it"
            ) from None
        except OSError as error:
            sys.stderr.write(
                f"{self.path.parent} lies on a file system without locks ({error.strerror}):"
                " nothing keeps a second process from writing there\n"
            )
        with contextlib.suppress(OSError):  # a full disk takes nobody's lock away
            os.ftruncate(handle, 0)
            os.pwrite(handle, _own_name(), 0)
        self._handle = handle
        self._finalizer = weakref.finalize(self, os.close, handle)
        _held.add(self)

    def release(self) -> None:
        """Let go of the lock, if this object holds it."""
        if self._handle is None or self._finalizer is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
        self._close()

    def _close(self) -> None:
        self._handle = None
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _own_name() -> bytes:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def _holder(handle: int) -> str:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not said so yet
        return "another process"


def _let_go_in_child() -> None:
    # A forked child shares the open file: it would keep the lock when its parent is dead.
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_let_go_in_child)
