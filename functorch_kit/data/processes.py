"""Batches made in worker processes of Grain, for decoding that holds Python's interpreter lock."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import first_line
from functorch_kit.types import Batch, Spec

_FAILURES = 3
# Beside the parts of a row, what a worker has to say.
_ERROR, _SKIPPED = "data/error", "data/skipped"


class _Steps:
    """A pipeline's rows by step, as Grain asks for them."""

    def __init__(self, pipeline: Any, first: int):
        self.pipeline, self.first = pipeline, first
        config: Any = jax.config
        self.wide = bool(config.jax_enable_x64)  # a worker has settings of its own

    def __len__(self) -> int:
        return sys.maxsize - self.first

    def __getitem__(self, number: Any) -> dict[str, np.ndarray]:
        skipped = getattr(self.pipeline, "skipped", None)
        known = set(skipped or {})
        try:
            with jax.enable_x64(self.wide):
                rows = self.pipeline.rows(self.first + int(number), 1)
        except DataError as error:
            # Grain would wrap it, and lose which record it was.
            return {_ERROR: np.array(str(error))}
        if skipped and (new := {k: v for k, v in skipped.items() if k not in known}):
            rows = {**rows, _SKIPPED: np.array(json.dumps(new))}
        return rows


class InProcesses:
    """A pipeline whose rows worker processes make; it is used like the pipeline itself.

    The rows are the same: a worker that dies or hangs costs time, and no record is lost or comes
    twice. What it owed is made in this process, the workers are started afresh, and after three
    such failures this process goes on alone; each time a line on standard error says so.

    A script that uses it must start under ``if __name__ == "__main__":``, and the pipeline must
    be such as can be pickled: its functions named, not lambdas.

    Args:
        pipeline: any pipeline.
        processes: how many; each takes seconds to start.
        patience: seconds to wait for a step before its worker is taken for dead.

    Raises:
        DataError: Grain is not installed, or fewer than one process.

    Example:
        >>> from functorch_kit.data import training
        >>> pipeline = training({"x": np.arange(8.0)}, 4, seed=0)
        >>> reader = InProcesses(pipeline, processes=2)  # nothing starts before rows are asked for
        >>> bool((reader(3)["x"] == pipeline(3)["x"]).all())
        True
    """

    def __init__(self, pipeline: Any, processes: int = 2, patience: float = 20.0):
        if processes < 1 or not patience > 0:
            raise DataError(
                f"processes is {processes} and patience {patience}: give one process and some"
                " seconds at least"
            )
        if importlib.util.find_spec("grain") is None:
            raise DataError("worker processes are Grain's: pip install 'functorch_kit[data]'")
        self.inner = pipeline
        self.processes, self.patience = processes, patience
        self.failures = 0
        self._next = -1
        self._results: queue.Queue[Any] | None = None
        self._workers: list[Any] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, step: int) -> Batch:
        """The batch of one step, made in this process."""
        return self.inner(step)

    def __getattr__(self, name: str) -> Any:
        # Specs, order, constant, batch …: they are the pipeline's.
        if name in ("inner", "__getstate__", "__setstate__", "rows_by"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def row_spec(self) -> Spec:
        """Shapes and dtypes of what crosses to the device for one step."""
        return self.inner.row_spec

    def rows(self, start: int, steps: int) -> dict[str, np.ndarray]:
        """What crosses for ``steps`` steps from ``start`` on, made by the workers."""
        with self._lock:
            rows = [self._row(step) for step in range(start, start + steps)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)

    def seeded(self, seed: int) -> InProcesses:
        """The same records in the order of another seed, read by processes of its own."""
        return InProcesses(self.inner.seeded(seed), self.processes, self.patience)

    def digest(self) -> list[Any]:
        """What makes two of them the same."""
        return [self.inner]

    def close(self) -> None:
        """End the workers."""
        self._stop.set()
        self._results = None
        for worker in self._workers:
            if worker.is_alive():
                worker.kill()  # also one that is stopped, which would not hear of anything else
        self._workers = []
        self._next = -1

    def _row(self, step: int) -> dict[str, np.ndarray]:
        if self.failures >= _FAILURES:
            return self.inner.rows(step, 1)
        if step != self._next or self._results is None:
            self.close()
            self._start(step)
        assert self._results is not None
        try:
            row = self._results.get(timeout=self.patience)
            if isinstance(row, Exception):
                raise row
        except Exception as error:  # queue.Empty, or what Grain said of a worker
            self._failed(step, error)
            return self.inner.rows(step, 1)
        if _ERROR in row:
            self.close()
            return self.inner.rows(step, 1)  # which raises what the worker has seen
        self._next = step + 1
        if (said := row.pop(_SKIPPED, None)) is not None:
            new = json.loads(str(said))
            self.inner.skipped.update({int(number): reason for number, reason in new.items()})
        return row

    def _start(self, first: int) -> None:
        before = set(multiprocessing.active_children())
        results: queue.Queue[Any] = queue.Queue(maxsize=2)
        stop = threading.Event()
        self._results, self._stop, self._next = results, stop, first
        found: list[Any] = []
        began = threading.Event()
        steps = _Steps(self.inner, first)

        def read() -> None:
            try:
                iterator = _grain_iterator(steps, self.processes)
                item = next(iterator)  # Grain starts its processes here
                found.extend(set(multiprocessing.active_children()) - before)
                began.set()
                while not stop.is_set():
                    _put(results, item, stop)
                    item = next(iterator)
            except Exception as error:
                found.extend(set(multiprocessing.active_children()) - before)
                began.set()
                _put(results, error, stop)

        threading.Thread(target=read, name="workers", daemon=True).start()
        # Importing takes seconds in each process: that is no sign of death.
        began.wait(self.patience + 10 * self.processes)
        self._workers = found or list(set(multiprocessing.active_children()) - before)

    def _failed(self, step: int, error: Exception) -> None:
        self.failures += 1
        self.close()
        what = (
            f"gave nothing for {self.patience:g} s"
            if isinstance(error, queue.Empty)
            else f"failed ({first_line(error)[:120]})"
        )
        then = "are started afresh"
        if self.failures >= _FAILURES:
            then = "are given up: this process reads alone"
        sys.stderr.write(
            f"data workers {what} at step {step}; its rows are made here, they {then}\n"
        )


def _put(results: queue.Queue[Any], item: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            results.put(item, timeout=0.2)
            return
        except queue.Full:
            continue


def _grain_iterator(steps: Any, processes: int) -> Iterator[Any]:
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of absl, and this is no app of its kind
    dataset = grain.MapDataset.source(steps).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
    options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=2)
    return iter(dataset.mp_prefetch(options))
