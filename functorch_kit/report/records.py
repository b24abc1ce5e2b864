"""The record of a run: ``metrics.jsonl``, one strict JSON object per logged step and split."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from functorch_kit.errors import UserError

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
# Enough rows for one write to cost little, few enough for a killed run to lose little.
_BUFFER_ROWS = 4096


class RecordError(UserError, ValueError):
    """A row that cannot be recorded, or a record that cannot be gone on with.

    Example:
        >>> issubclass(RecordError, ValueError)
        True
    """


def strict(value: Any, name: str = "value") -> Any:
    """Plain data that strict JSON can hold, with nothing lost.

    JSON has no NaN and no infinity. They become the strings ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``, which every JSON reader accepts and ``read_metrics`` turns back into floats.

    Args:
        value: numbers, strings, booleans, None, arrays, and dicts and lists of these.
        name: what to call the value in an error.

    Returns:
        The same as built-in types; a float is the same double, so its text parses back exactly.

    Raises:
        RecordError: something else is in there.

    Example:
        >>> strict({"loss": float("nan"), "sizes": (1, 2)})
        {'loss': 'NaN', 'sizes': [1, 2]}
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _nonfinite_name(value)
    if isinstance(value, Mapping):
        return {str(key): strict(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return strict(value.tolist(), name)
    raise RecordError(
        f"{name} is of type {type(value).__name__}: give numbers, strings, lists or dicts"
    )


def _nonfinite_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON text of plain data.

    Args:
        value: see ``strict``.
        indent: spaces per level, or None for one line.

    Returns:
        The text.

    Raises:
        RecordError: something is not plain data.

    Example:
        >>> dumps({"loss": 0.1, "worst": float("inf")})
        '{"loss": 0.1, "worst": "Infinity"}'
    """
    return json.dumps(strict(value), indent=indent, allow_nan=False, ensure_ascii=False)


class MetricsLog:
    """Rows of metrics in a JSON-lines file, each ``(step, split)`` once and steps never falling.

    Rows are buffered: ``flush`` hands them to the operating system, so call it before a checkpoint
    is published. A new log replaces a file that is there; ``keep_through`` goes on with it.

    Args:
        path: the file; its folder is made.
        keep_through: the step of the checkpoint that the run goes on from. Rows of later steps are
            dropped, and so is a last line that was torn when the run was killed.

    Raises:
        RecordError: a line before the last cannot be read, or the rows are out of order.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> with MetricsLog(path) as log:
        ...     log.write({"step": 20, "split": "train", "loss": 0.5})
        ...     log.write({"step": 20, "split": "validation", "loss": float("nan")})
        >>> print(path.read_text(), end="")
        {"step": 20, "split": "train", "loss": 0.5}
        {"step": 20, "split": "validation", "loss": "NaN"}
    """

    def __init__(self, path: str | os.PathLike[str], keep_through: int | None = None) -> None:
        self.path = Path(path)
        self._buffer: list[str] = []
        self._step = -1
        self._splits: set[str] = set()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if keep_through is not None and self.path.exists():
            self._keep(keep_through)
            self._file = self.path.open("ab")
        else:
            self._file = self.path.open("wb")

    def write(self, row: Mapping[str, Any]) -> None:
        """Record one row.

        Args:
            row: ``step`` (from 0 up), ``split`` and the metrics.

        Raises:
            RecordError: step or split is missing, the pair was written before, the step lies
                before the last one, or a value is not plain data.
        """
        if self._file.closed:
            raise RecordError(f"{self.path.name} is closed: open it again to write more rows")
        # Rows are written between steps of a few hundred microseconds: what nearly every value
        # is passes without a call.
        plain: dict[str, Any] = {}
        for name, value in row.items():
            kind = type(value)
            common = kind is int or kind is str or (kind is float and math.isfinite(value))
            plain[name] = value if common else strict(value, name)
        self._advance(*_address(plain))
        self._buffer.append(_encode(plain) + "\n")
        if len(self._buffer) >= _BUFFER_ROWS:
            self.flush()

    def flush(self, *, to_disk: bool = False) -> None:
        """Hand the buffered rows to the operating system, where a killed process cannot lose them.

        Args:
            to_disk: also wait until the disk has them, against a power cut.
        """
        if self._buffer:
            text, self._buffer = "".join(self._buffer), []
            self._file.write(text.encode())
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; closing twice is allowed."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, step: int, split: str) -> None:
        if step < self._step:
            raise RecordError(
                f"step {step} ({split}) comes after step {self._step}: write rows in order of step"
            )
        if step > self._step:
            self._splits.clear()
        if split in self._splits:
            raise RecordError(f"step {step} ({split}) was written before: write each row once")
        self._step = step
        self._splits.add(split)

    def _keep(self, keep_through: int) -> None:
        # Steps never fall, so what is kept is a prefix: cutting the file is one atomic call.
        end = 0
        for start, row in _rows(self.path):
            step, split = _address(row)
            if step > keep_through:
                break
            self._advance(step, split)
            end = start
        os.truncate(self.path, end)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    r"""The rows of a ``metrics.jsonl``, non-finite numbers as floats again.

    Args:
        path: the file; a torn last line is left out.

    Returns:
        One dict per row, in order.

    Raises:
        RecordError: a line before the last cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> _ = path.write_text('{"step": 1, "split": "train", "loss": "Infinity"}\n{"st')
        >>> read_metrics(path)
        [{'step': 1, 'split': 'train', 'loss': inf}]
    """
    return [
        {name: value if name == "split" else _restored(value) for name, value in row.items()}
        for _, row in _rows(Path(path))
    ]


def _restored(value: Any) -> Any:
    if isinstance(value, str):
        return _NONFINITE.get(value, value)
    return [_restored(item) for item in value] if isinstance(value, list) else value


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with the offset at which its line ends; a torn last line ends the iteration."""
    data = path.read_bytes()
    start, number = 0, 0
    while start < len(data):
        number += 1
        newline = data.find(b"\n", start)
        if newline < 0:
            return
        try:
            row = json.loads(data[start:newline])
            _address(row)
        except ValueError as error:
            if newline + 1 == len(data):  # the last line, torn by a block that was never written
                return
            raise RecordError(
                f"{path.name}, line {number} is no row of metrics: delete the line, or start anew"
            ) from error
        start = newline + 1
        yield start, row


def _address(row: Any) -> tuple[int, str]:
    if not isinstance(row, dict):
        raise RecordError("a row of metrics is a dict with step, split and the metrics")
    step, split = row.get("step"), row.get("split")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise RecordError(f"a row's step is {step!r}: give a whole number from 0 up")
    if not isinstance(split, str) or not split:
        raise RecordError(f"the split of step {step} is {split!r}: give train, validation or test")
    return step, split
