"""The same rows as TensorBoard events, in tensorboardX's messages.

The events are written here, not by its ``SummaryWriter``: that starts a thread and a queue for each
run, so that a flush leaves behind what is still queued, and waits for the disk each time.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from functorch_kit.report.quantities import as_number

# So that who looks at a run sees it move, long before the next checkpoint.
_SECONDS_BETWEEN_FLUSHES = 10.0


class TensorBoardLog:
    """Rows of metrics as TensorBoard scalars, one chart per metric and one line per split.

    Where tensorboardX is not installed, one line on stderr says so and nothing is written.

    Args:
        folder: where the event file goes.
        purge_step: TensorBoard forgets the events from this step on: when a run goes on from the
            checkpoint of step n, give n + 1.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with TensorBoardLog(folder) as log:
        ...     log.write({"step": 1, "split": "train", "loss": 0.5})
        >>> len(list(folder.glob("events.*")))
        1
    """

    def __init__(self, folder: str | os.PathLike[str], *, purge_step: int | None = None) -> None:
        self._file: BinaryIO | None = None
        try:
            # Imported here because it costs 115 ms, which only those who want events shall pay.
            from tensorboardX import record_writer
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError:
            print(
                "TensorBoard events are skipped: pip install 'functorch_kit[experiments]' "
                "brings tensorboardX",
                file=sys.stderr,
            )
            return
        # protobuf makes its classes when it is imported
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        self._check = record_writer.masked_crc32c
        Path(folder).mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        seconds, rest = divmod(time.time_ns(), 10**9)
        self._file = (Path(folder) / f"events.out.tfevents.{seconds}.{rest:09}").open("xb")
        self._flushed = time.monotonic()
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(step=purge_step, session_log=start)

    def write(self, row: Mapping[str, Any]) -> None:
        """Record one row.

        Args:
            row: ``step``, ``split`` and the metrics; what is no finite number has no point on a
                chart and is left to ``metrics.jsonl``.
        """
        if self._file is None:
            return
        step, split = row.get("step"), str(row.get("split", "train"))
        one, values = self._summaries.Summary.Value, []
        for name, value in row.items():
            number = None if name in ("step", "split") else as_number(value)
            if number is not None and math.isfinite(number):
                values.append(one(tag=f"{name}/{split}", simple_value=number))
        # One event for a row: an event for each value, as `add_scalar` has it, takes twice as long.
        if values:
            summary = self._summaries.Summary(value=values)
            self._add(step=None if step is None else int(step), summary=summary)
            if time.monotonic() > self._flushed + _SECONDS_BETWEEN_FLUSHES:
                self.flush()

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        if self._file is not None:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close; closing twice is allowed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, **fields: Any) -> None:
        """Write an event as TensorFlow's records have it: its length and itself, each checked."""
        assert self._file is not None
        event = self._events.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(event))
        checks = (struct.pack("<I", self._check(each)) for each in (length, event))
        self._file.write(b"".join((length, next(checks), event, next(checks))))
