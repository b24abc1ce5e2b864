"""Delivery: the next rows are made and sent to the device while the model trains on these."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from functorch_kit.data.diagnosis import Diagnosis, diagnosed

_QUICK_SECONDS = 1e-3
_GAIN, _TRIED = 1.2, 2
_POLL_SECONDS, _LONG_SECONDS = 5e-4, 0.1
_EXIT_SECONDS = 5.0

_under_way: set[threading.Thread] = set()


class Feed:
    """Blocks of a pipeline's rows on the device, by number.

    A block is a pure function of its number, so that nothing here can change what is trained on:
    it may be made at once, ahead of time on a thread (two blocks are held: the one in use and the
    next), or by several threads. Which of these is settled by measuring the first blocks, which
    are needed anyway.

    Args:
        pipeline: any pipeline.
        steps: steps in a block.
        put: from a tree of host arrays to one on the device.
        threads: the most that read; None: as many as there are cores.

    Attributes:
        mode: ``"resident"``, ``"inline"``, ``"prefetch"``, ``"prefetch, <n> threads"`` or
            ``"prefetch, <n> worker processes"``.
        reason: why, in words.

    Example:
        >>> import numpy as np
        >>> from functorch_kit.data import training
        >>> feed = Feed(training({"x": np.arange(8.0)}, 4, seed=0), steps=2)
        >>> feed(0)["index"].shape, feed.mode
        ((2, 4), 'resident')
    """

    def __init__(
        self,
        pipeline: Any,
        steps: int,
        *,
        put: Callable[[Any], Any] = jax.device_put,
        threads: int | None = None,
    ):
        self.mode, self.reason = "inline", "nothing has been read yet"
        self._pipeline, self._steps, self._put = pipeline, steps, put
        self._threads = _cores() if threads is None else threads
        self._processes = _processes_of(pipeline)
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[Any]] | None = None
        self._rates: dict[int, float] = {}
        self._making = self._sending = 0.0
        self._blocks = 0
        if jax.tree.leaves(pipeline.constant()):
            self.mode, self.reason = "resident", "the data live on the device"

    def __call__(self, number: int, is_idle: Callable[[], bool] = lambda: True) -> Any:
        """The block with a number, on the device; the next one is begun.

        Args:
            number: from 0 up.
            is_idle: says whether the device has done all it was given; see ``waited_seconds``.

        Raises:
            DataError: what the pipeline raised for this block.
        """
        began = time.perf_counter()
        idle_since = began if is_idle() else None
        found, future = self._ahead or (number, None)
        self._ahead = None
        # One that nobody wants any more is waited for as well: two are never made at once.
        while future is not None and not future.done():
            wait([future], _POLL_SECONDS if idle_since is None else _LONG_SECONDS)
            if idle_since is None and is_idle():
                idle_since = time.perf_counter()
        block = self._made(number) if future is None or found != number else future.result()
        if idle_since is None and is_idle():
            idle_since = time.perf_counter()
        self.waited_seconds = 0.0 if idle_since is None else time.perf_counter() - idle_since
        if self.mode.startswith("prefetch"):
            self._ahead = (number + 1, _begun(lambda: self._made(number + 1)))
        return block

    waited_seconds = 0.0
    """Of the last call: while the device had nothing to do."""

    def diagnosis(self, wait_seconds: float, compute_seconds: float) -> Diagnosis:
        """What was measured, whether the run waited for its input, and what to change.

        Args:
            wait_seconds: while the device had nothing to do for want of input.
            compute_seconds: while it had.
        """
        records = self._blocks * self._steps * _records_a_step(self._pipeline)
        seconds: dict[str, float] = {}
        if not self._processes:  # those keep their own time
            seconds = dict(getattr(_source_of(self._pipeline), "seconds", None) or {})
        seconds = seconds or {"read": self._making}
        return diagnosed(
            mode=self.mode,
            reason=self.reason,
            blocks=self._blocks,
            records=records,
            seconds=seconds | {"transfer": self._sending},
            making_seconds=self._making + self._sending,
            wait_seconds=wait_seconds,
            compute_seconds=compute_seconds,
            decodes=_decodes(self._pipeline),
            processes=self._processes,
            skipped=len(getattr(_source_of(self._pipeline), "skipped", None) or {}),
        )

    def close(self) -> None:
        """Wait for the block that is under way, and for nothing more."""
        if self._ahead is not None:
            wait([self._ahead[1]], _EXIT_SECONDS)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _made(self, number: int) -> Any:
        began = time.perf_counter()
        workers = self._workers()
        if workers > 1:
            self._pool = self._pool or ThreadPoolExecutor(workers, "reading")
            rows = self._pipeline.rows_by(self._pool, number * self._steps, self._steps)
        else:
            rows = self._pipeline.rows(number * self._steps, self._steps)
        made = time.perf_counter()
        block = jax.block_until_ready(self._put(rows))
        sent = time.perf_counter()
        self._making += made - began
        self._sending += sent - made
        self._blocks += 1
        self._settle(workers, made - began, sent - began)
        return block

    def _workers(self) -> int:
        """Threads for the next block: one for two, all of them for two, then what was faster."""
        if not hasattr(self._pipeline, "rows_by") or self._threads == 1 or self._processes:
            return 1
        if self._blocks >= 2 * _TRIED:
            return self._threads if self._gain() >= _GAIN else 1
        return self._threads if self._blocks >= _TRIED else 1

    def _gain(self) -> float:
        return self._rates.get(self._threads, 0.0) / self._rates[1]

    def _settle(self, workers: int, making: float, whole: float) -> None:
        if self.mode == "resident":
            return
        records = self._steps * _records_a_step(self._pipeline)
        # The better one: the first blocks take memory that has never been touched.
        self._rates[workers] = max(self._rates.get(workers, 0.0), records / max(making, 1e-9))
        if self._blocks == 1 and whole < _QUICK_SECONDS:
            self.mode, self.reason = "inline", f"a block of rows takes {1e3 * whole:.2f} ms"
            return
        if self.mode == "inline" and self._blocks > 1 and whole < 5 * _QUICK_SECONDS:
            return
        if self._processes:
            self.mode = f"prefetch, {self._processes} worker processes"
            self.reason = f"they give {self._rates[1]:,.0f} records/s at best"
            return
        self.mode = "prefetch"
        self.reason = f"one thread reads {self._rates[1]:,.0f} records/s while the model trains"
        if self._threads in self._rates and self._threads > 1:
            many = f"{self._threads} threads {self._rates[self._threads]:,.0f}"
            self.reason = f"one thread reads {self._rates[1]:,.0f} records/s, {many}"
            if self._gain() >= _GAIN:
                self.mode = f"prefetch, {self._threads} threads"


def each_on_device(pipeline: Any) -> Iterator[Any]:
    """The batches of a finite pipeline on the device, the next one begun while one is used.

    Args:
        pipeline: with ``steps``.

    Example:
        >>> import numpy as np
        >>> from functorch_kit.data import evaluation
        >>> [b["x"].tolist() for b in each_on_device(evaluation({"x": np.arange(3.0)}, 2))]
        [[0.0, 1.0], [2.0, 0.0]]
    """
    on_device = getattr(pipeline, "on_device", lambda step: jax.device_put(pipeline(step)))
    ahead: Future[Any] | None = None
    for step in range(pipeline.steps):
        batch = on_device(step) if ahead is None else ahead.result()
        ahead = None
        if step + 1 < pipeline.steps:
            ahead = _begun(lambda after=step + 1: on_device(after))
        yield batch


def sharded(mesh: jax.sharding.Mesh, axis: str | tuple[str, ...] = "data") -> Callable[[Any], Any]:
    """How blocks of one process's rows become arrays of all processes: ``Feed(put=sharded(mesh))``.

    Args:
        mesh: the devices of all processes.
        axis: the mesh's axis, or axes, over which batches are shared out, in the order of
            processes.

    Returns:
        From a tree of host arrays (steps, local batch, ...) to one of global arrays.

    Example:
        >>> import numpy as np
        >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
        >>> rows = {"x": np.zeros((3, 2 * jax.device_count()))}
        >>> tuple(sharded(mesh)(rows)["x"].sharding.spec)
        (None, 'data')
    """
    placement = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, axis))

    def put(rows: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(placement, leaf), rows
        )

    return put


def _begun(make: Callable[[], Any]) -> Future[Any]:
    """Something that is made on a thread, under the caller's settings of JAX."""
    future: Future[Any] = Future()
    # A thread does not inherit what `with jax.enable_x64(True):` and the like have set.
    config: Any = jax.config
    wide, device = config.jax_enable_x64, config.jax_default_device

    def run() -> None:
        try:
            with jax.enable_x64(wide), jax.default_device(device):
                future.set_result(make())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
        finally:
            _under_way.discard(thread)

    thread = threading.Thread(target=run, name="data", daemon=True)
    _under_way.add(thread)
    thread.start()
    return future


def _source_of(pipeline: Any) -> Any:
    """The pipeline itself, without the transforms around it."""
    while hasattr(pipeline, "inner"):
        pipeline = pipeline.inner
    return pipeline


def _records_a_step(pipeline: Any) -> int:
    order = getattr(pipeline, "order", None)
    if order is not None:
        return order.batch_size
    leaves = jax.tree.leaves(pipeline.row_spec)  # of several pipelines side by side
    return leaves[0].shape[0] if leaves and leaves[0].shape else 1


def _processes_of(pipeline: Any) -> int:
    """How many worker processes read for a pipeline."""
    # Its own and not those of what it hands on: a pipeline in processes answers for its inner one.
    while "processes" not in (own := getattr(pipeline, "__dict__", {})) and "inner" in own:
        pipeline = pipeline.inner
    return own.get("processes", 0)


def _decodes(pipeline: Any) -> bool:
    return bool(getattr(getattr(_source_of(pipeline), "source", None), "decodes", False))


def _cores() -> int:
    # What this process may use, which a container or a scheduler may have limited.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@atexit.register
def _leave_in_order() -> None:
    """A thread inside the device's runtime must not outlive it; one that hangs is left behind."""
    end = time.monotonic() + _EXIT_SECONDS
    for thread in list(_under_way):
        thread.join(max(0.0, end - time.monotonic()))
