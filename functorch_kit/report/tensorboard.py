"""The same rows as TensorBoard events, through tensorboardX."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from functorch_kit.report.quantities import as_number


class TensorBoardLog:
    """Rows of metrics as TensorBoard scalars, one chart per metric and one line per split.

    Where tensorboardX is not installed, one line on stderr says so and nothing is written.

    Args:
        folder: where the event file goes.
        purge_step: TensorBoard forgets the events from this step on: when a run goes on from the
            checkpoint of step n, give n + 1.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with TensorBoardLog(folder) as log:
        ...     log.write({"step": 1, "split": "train", "loss": 0.5})
        >>> len(list(folder.glob("events.*")))
        1
    """

    def __init__(self, folder: str | os.PathLike[str], *, purge_step: int | None = None) -> None:
        self._writer: Any = None
        try:
            # Imported here because it costs 115 ms, which only those who want events shall pay.
            from tensorboardX import SummaryWriter
        except ImportError:
            print(
                "TensorBoard events are skipped: pip install 'functorch_kit[experiments]' "
                "brings tensorboardX",
                file=sys.stderr,
            )
            return
        from tensorboardX.proto import summary_pb2

        self._writer = SummaryWriter(os.fspath(folder), purge_step=purge_step)
        self._messages: Any = summary_pb2  # protobuf makes its classes when it is imported

    def write(self, row: Mapping[str, Any]) -> None:
        """Record one row.

        Args:
            row: ``step``, ``split`` and the metrics; what is no finite number has no point on a
                chart and is left to ``metrics.jsonl``.
        """
        if self._writer is None:
            return
        step, split = row.get("step"), str(row.get("split", "train"))
        one, values = self._messages.Summary.Value, []
        for name, value in row.items():
            number = None if name in ("step", "split") else as_number(value)
            if number is not None and math.isfinite(number):
                values.append(one(tag=f"{name}/{split}", simple_value=number))
        # One event for a row: an event for each value, as `add_scalar` has it, takes twice as long.
        if values:
            self._writer.file_writer.add_summary(self._messages.Summary(value=values), step)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flush and close; closing twice is allowed."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
