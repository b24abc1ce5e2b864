"""A folder of checkpoints: save in the background, restore strictly."""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import operator
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from functorch_kit.checkpoint import content, leaves, publish
from functorch_kit.checkpoint.errors import CheckpointError, cause_line
from functorch_kit.types import PyTree

_unfinished: set[Store] = set()


class Store:
    """Checkpoints of one run, each in a folder named after its step.

    ``save`` copies the state and returns; one thread writes it. A step appears whole or not at all,
    its marks (``latest``, ``best``) with it. Before the first save the folder is only read.

    Args:
        folder: where the checkpoints lie; created by the first save.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> state = {"kernel": jnp.arange(3.0), "step": jnp.int32(20)}
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(20, state, meta={"validation_loss": 0.1}, best=True)
        ...     store.wait()
        ...     restored, meta = store.restore(store.best(), like=state)
        >>> restored["kernel"].tolist(), meta
        ([0.0, 1.0, 2.0], {'validation_loss': 0.1})
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()  # Orbax takes no other, and the user may chdir
        self._thread: threading.Thread | None = None
        self._written = threading.Event()
        self._error: CheckpointError | None = None
        self._prepared = False
        self._closed = False

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        meta: Mapping[str, Any] | None = None,
        best: bool = False,
        pins: Sequence[str] = (),
    ) -> None:
        """Copy ``state`` to the host and write it in the background as the latest checkpoint.

        When this returns, the buffers of ``state`` may be donated. A save still under way is waited
        for first. Steps that no mark names are removed once this one is published. A step that
        exists is replaced, and the marks that name it stay.

        Args:
            step: number of the step, from 0 up.
            state: pytree of arrays, typed PRNG keys among them.
            meta: JSON values to keep beside the state.
            best: also move the mark ``best`` here.
            pins: further marks to move here; they keep the step like ``latest`` and ``best`` do.

        Raises:
            CheckpointError: the state or ``meta`` cannot be saved, the store is closed, or the
                former save failed (then nothing is saved, and the next call tries again).
        """
        self.wait()
        if self._closed:
            raise CheckpointError(f"{self.folder} was closed: open a new Store to save step {step}")
        step = operator.index(step)
        if step < 0:
            raise CheckpointError(f"step is {step}: give a number from 0 up")
        try:
            # Written out now: the caller may change the dict while the thread works.
            kept = json.dumps(dict(meta or {}))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"meta of step {step} is not JSON: {cause_line(error)}") from None
        host, records = leaves.to_host(state)
        names = ["latest", *(["best"] if best else []), *pins]
        fill = functools.partial(content.write, step=step, host=host, records=records, meta=kept)
        self._written.clear()
        self._thread = threading.Thread(
            target=self._write, args=(step, names, fill), name=f"checkpoint-{step}"
        )
        _wait_at_exit(self)
        try:
            self._thread.start()
        except RuntimeError:  # too late in the life of the interpreter
            self._written.set()
            raise

    def _write(self, step: int, names: list[str], fill: Any) -> None:
        try:
            if not self._prepared:
                publish.prepare(self.folder)
                self._prepared = True
            publish.publish(self.folder, step, names, fill)
            publish.retire(self.folder)
        except BaseException as error:  # whatever it is, the caller must hear of it
            self._error = CheckpointError(
                f"{self.folder / str(step)} could not be saved: {cause_line(error)}:"
                " make room or give a folder that can be written"
            )
            self._error.__cause__ = error
        finally:
            self._written.set()

    def _join(self) -> None:
        if self._thread is not None:
            # Not join: before Python 3.13 a join that Ctrl-C ends takes the thread for ended too,
            # and the interpreter would leave in the middle of the save.
            self._written.wait()
            self._thread = None

    def wait(self) -> None:
        """Wait until the save under way is on disk.

        Raises:
            CheckpointError: it failed; names the folder and the cause. Raised once.
        """
        self._join()
        _unfinished.discard(self)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait as ``wait`` does, and take no more saves; reading goes on working."""
        self._closed = True
        self.wait()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # the first fault is the one to see

    def steps(self) -> list[int]:
        """Steps that are published, rising."""
        return list(publish.steps(self.folder))

    def marks(self) -> dict[str, int]:
        """Every mark and the step that it names."""
        return dict(publish.marks(self.folder).names)

    def latest(self) -> int | None:
        """The step saved last, or None."""
        return self.marks().get("latest")

    def best(self) -> int | None:
        """The step saved last with ``best=True``, or None."""
        return self.marks().get("best")

    def _path(self, step: int) -> Path:
        self._join()
        published = publish.steps(self.folder)
        if step not in published:
            there = ", ".join(map(str, published))
            raise CheckpointError(
                f"{self.folder} holds no checkpoint of step {step}: "
                + (f"it has {there}" if there else "it has none at all")
            )
        return published[step]

    def verify(self, step: int) -> None:
        """Compare every file of a step with its manifest.

        Raises:
            CheckpointError: no such step, or names the first file that is not as it was written.
        """
        content.verified(self._path(step), step)

    def restore(self, step: int, like: PyTree) -> tuple[Any, dict[str, Any]]:
        """Verify a step and read it into the structure of ``like``.

        Args:
            step: a published step.
            like: the state to fill: arrays or ``jax.ShapeDtypeStruct``; shardings are followed.

        Returns:
            The state, bit for bit as saved, and its ``meta``.

        Raises:
            CheckpointError: no such step, a file is damaged, or a leaf differs in name, shape or
                dtype (named, with what was expected and found).
        """
        path = self._path(step)
        record = content.verified(path, step)
        leaves.check(record["leaves"], like, str(path))
        return leaves.rebuild(content.load(path, record), record["leaves"], like), record["meta"]


def _wait_at_exit(store: Store) -> None:
    _register()
    _unfinished.add(store)


@functools.cache
def _register() -> None:
    # When the interpreter leaves, it first stops all thread pools, and Orbax cannot finish without
    # one: a save under way would be lost with exit code 0. Hooks run last in, first out, so this
    # one comes before theirs; the documented atexit comes after the pools are gone. Python 3.12.0
    # and 3.12.1 start no threads any more even here: there the loss is at least said.
    importlib.import_module("concurrent.futures.thread")
    getattr(threading, "_register_atexit", atexit.register)(_finish)


def _finish() -> None:
    for store in list(_unfinished):
        try:
            store.wait()
        except CheckpointError as error:
            sys.stderr.write(f"{error}\n")
