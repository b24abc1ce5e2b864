"""A folder of checkpoints: save in the background, restore strictly."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import importlib
import json
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from functorch_kit.checkpoint import content, leaves, pieces, publish, retention, snapshot
from functorch_kit.checkpoint.errors import CheckpointError, Damaged, cause_line
from functorch_kit.checkpoint.lock import Lock
from functorch_kit.checkpoint.retention import Entry, Keep
from functorch_kit.types import PyTree

_unfinished: set[Store] = set()


class Partial(NamedTuple):
    """What ``restore_partial`` found.

    Attributes:
        state: in the structure asked for, with the leaves that fit from the checkpoint.
        taken: paths of those leaves.
        left: path -> why, for every leaf of either side that was not taken.
    """

    state: Any
    taken: list[str]
    left: dict[str, str]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class Store:
    """Checkpoints of one run, each in a folder named after its step.

    ``save`` copies the state and returns; one thread writes it. A step appears whole or not at all,
    with a manifest of the SHA-256 of each file, everything synced to the disk. Before the first
    save the folder is only read; from then on until ``close`` no other process may write to it, and
    the memory for one copy of the state is kept for the next save.

    Args:
        folder: where the checkpoints lie; created by the first save.
        keep: which of them stay.
        team: the processes that save together, see ``distributed.Team``: each writes what only it
            has, process 0 publishes. None for one process.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> state = {"kernel": jnp.arange(3.0), "step": jnp.int32(20)}
        >>> with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.save(20, state, meta={"seed": 1}, score=0.1)
        ...     store.wait()
        ...     restored, meta = store.restore(store.best(), like=state)
        >>> restored["kernel"].tolist(), meta
        ([0.0, 1.0, 2.0], {'seed': 1})
    """

    def __init__(self, folder: str | Path, keep: Keep | None = None, *, team: Any = None) -> None:
        self.folder = Path(folder).absolute()  # Orbax takes no other, and the user may chdir
        self.keep = keep or Keep()
        self._team = pieces.Together(self.folder, team)
        self._lock = Lock(self.folder)
        self._entries: dict[int, Entry] | None = None  # of the writer; a reader looks each time
        self._damaged: set[int] = set()
        self._written = threading.Event()  # nothing is under way
        self._written.set()
        self._error: CheckpointError | None = None
        self._room: np.ndarray | None = None  # kept for the next save, until the store is closed
        self._closed = False

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        meta: Mapping[str, Any] | None = None,
        score: float | None = None,
        pinned: bool = False,
    ) -> None:
        """Copy ``state`` and write it in the background as the latest checkpoint.

        When this returns, the buffers of ``state`` may be donated. A save still under way is waited
        for first. Steps that the policy does not keep are removed once this one is published. A
        step that exists is replaced.

        Args:
            step: number of the step, from 0 up.
            state: pytree of arrays, typed PRNG keys among them.
            meta: JSON values to keep beside the state, such as the run's configuration.
            score: what the step is judged by, smaller is better; None if it was not measured.
            pinned: keep it whatever the policy says.

        Raises:
            Locked: another process writes to this folder.
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
        facts = {"step": step, "score": None if score is None else float(score), "pinned": pinned}
        taken = snapshot.take(state, self._room, shared=self._team.count > 1)
        self._room = taken.content
        self._open(step)
        self._written.clear()
        _wait_at_exit(self)
        try:
            # Not threading.Thread, whose start waits until the new thread has had its turn:
            # milliseconds where the cores are busy. What is to be waited for is ``_written``.
            _thread.start_new_thread(self._write, (step, taken, facts, kept))
        except RuntimeError:  # too late in the life of the interpreter
            self._written.set()
            raise

    def _open(self, step: int) -> None:
        if self._lock.held or not self._team.publishes:
            return
        try:
            publish.make(self.folder)
        except OSError as error:
            raise self._failure(step, error) from error
        self._lock.acquire()

    def _failure(self, step: int, error: BaseException) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / str(step)} could not be saved: {cause_line(error)}:"
            " make room or give a folder that can be written"
        )

    def _write(self, step: int, taken: snapshot.Snapshot, facts: dict[str, Any], meta: str) -> None:
        try:
            others = self._team.begun()
            if not self._team.publishes:
                return self._team.write(taken.blocks)
            if self._entries is None:
                self._entries = publish.prepare(self.folder, self._damaged, self._team.name)
                self._damaged.clear()
            known = self._entries
            sequence = 1 + max((entry.sequence for entry in known.values()), default=0)
            facts = {**facts, "sequence": sequence, "meta": json.loads(meta)}
            publish.publish(
                self.folder, step, lambda path: content.write(path, taken, facts, others)
            )
            path = self.folder / str(step)
            known[step] = Entry(path, sequence, facts["score"], facts["pinned"])
            for other in known.keys() - retention.kept(known, self.keep):
                publish.remove(known.pop(other).path)
        except BaseException as error:  # whatever it is, the caller must hear of it
            self._entries = None  # the folder is looked at anew
            self._error = self._failure(step, error)
            self._error.__cause__ = error
        finally:
            self._written.set()

    def wait(self) -> None:
        """Wait until the save under way is on disk.

        Raises:
            CheckpointError: it failed; names the folder and the cause. Raised once.
        """
        self._written.wait()
        _unfinished.discard(self)
        self.check()

    def check(self) -> None:
        """Raise what ``wait`` would, without waiting: of a save that has failed already.

        Raises:
            CheckpointError: it failed; names the folder and the cause. Raised once.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait as ``wait`` does, take no more saves, let others write; reading goes on working."""
        self._closed = True
        try:
            self.wait()
        finally:
            if self._written.is_set():  # else Ctrl-C came, and the save goes on
                self._lock.release()
                self._room = None

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

    def latest(self) -> int | None:
        """The step saved last, or None."""
        return next(iter(retention.newest_first(self._sound())), None)

    def best(self) -> int | None:
        """The step with the smallest score, or None where none has a score."""
        return next(iter(retention.best_first(self._sound())), None)

    def _sound(self) -> dict[int, Entry]:
        known = publish.entries(self.folder)
        return {step: entry for step, entry in known.items() if step not in self._damaged}

    def _path(self, step: int) -> Path:
        self._written.wait()
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
        with self._noting(step):
            content.verified(self._path(step), step)

    @contextlib.contextmanager
    def _noting(self, step: int) -> Iterator[None]:
        """Remember a step that turns out to be damaged: the next save sets it aside."""
        try:
            yield
        except Damaged:
            self._damaged.add(step)
            self._entries = None
            raise

    def newest(self, announce: Callable[[str], None] = _say) -> int | None:
        """The step saved last of those that verify, or None where there is none at all.

        Damaged ones are passed over, each with a line. Nothing is changed on the disk before the
        next save, which sets them aside as ``<step>.damaged``.

        Args:
            announce: is given each line; standard error if not said otherwise.

        Raises:
            CheckpointError: there are steps, but none verifies.
        """
        self._written.wait()
        published = publish.steps(self.folder)
        known = publish.entries(self.folder)
        unknown = [step for step in reversed(published) if step not in known]
        for step in [*unknown, *retention.newest_first(known)]:
            try:
                self.verify(step)
                return step
            except Damaged as error:
                announce(f"step {step} is passed over: {error}")
        if published:
            raise CheckpointError(
                f"{self.folder} holds {len(published)} checkpoints, and all of them are damaged:"
                " start anew or bring back a copy"
            )
        return None

    def restore(self, step: int, like: PyTree) -> tuple[Any, dict[str, Any]]:
        """Verify a step and read it into the structure of ``like``.

        Args:
            step: a published step.
            like: the state to fill: arrays or ``jax.ShapeDtypeStruct``; shardings are followed.

        Returns:
            The state, bit for bit as saved, and its ``meta``.

        Raises:
            Damaged: a file is not as it was written.
            CheckpointError: no such step, or a leaf differs in name, shape or dtype (named, with
                what was expected and found).
        """
        path = self._path(step)
        with self._noting(step):
            leaves.check(content.sealed(path, step)["leaves"], like, str(path))
            record, arrays = content.load(path, step)
        return leaves.rebuild(arrays, record["leaves"], like), record["meta"]

    def restore_newest(
        self, like: PyTree, announce: Callable[[str], None] = _say
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """``restore`` of the ``newest`` step; None where there is none at all.

        Args:
            like: as for ``restore``.
            announce: as for ``newest``.

        Returns:
            The step, its state and its ``meta``.

        Raises:
            CheckpointError: as the two raise.
        """
        step = self.newest(announce)
        return None if step is None else (step, *self.restore(step, like))

    def restore_partial(self, step: int, like: PyTree) -> Partial:
        """Verify a step, and take from it the leaves that fit into ``like`` in all three respects.

        Args:
            step: a published step.
            like: the state to fill; leaves that the checkpoint lacks stay as they are here, so they
                have to be arrays.

        Returns:
            The state, the paths that were taken, and those that were left, with the reason.

        Raises:
            Damaged: a file is not as it was written.
            CheckpointError: no such step, no leaf fits, or one that does not is no array in
                ``like``.
        """
        path = self._path(step)
        with self._noting(step):
            record, arrays = content.load(path, step)
        wanted, differing = leaves.named(like), leaves.differences(record["leaves"], like)
        taken = [name for name in wanted if name not in differing]
        if not taken:
            raise CheckpointError(f"{path} has no leaf that fits: restore a part that it has")
        for name in wanted:
            if name in differing and isinstance(wanted[name], jax.ShapeDtypeStruct):
                raise CheckpointError(
                    f"leaf {name!r} expected {differing[name][0]}, found {differing[name][1]}:"
                    " give an array to use in its place"
                )
        fitting = {name: arrays[name] for name in taken}
        left = {name: f"expected {want}, found {have}" for name, (want, have) in differing.items()}
        return Partial(leaves.rebuild(fitting, record["leaves"], like), taken, left)


def _wait_at_exit(store: Store) -> None:
    _register()
    _unfinished.add(store)


@functools.cache
def _register() -> None:
    # The interpreter does not wait for the saving thread, and it first stops all thread pools,
    # without which Orbax cannot finish: a save under way would be lost with exit code 0. Hooks run
    # last in, first out, so this one comes before theirs; the documented atexit comes after the
    # pools are gone.
    importlib.import_module("concurrent.futures.thread")
    getattr(threading, "_register_atexit", atexit.register)(_finish)


def _finish() -> None:
    for store in list(_unfinished):
        try:
            store.wait()
        except CheckpointError as error:
            sys.stderr.write(f"{error}\n")
