"""The console of a run: a live bar on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from functorch_kit.report.compiling import line_if_slow, line_that_counts
from functorch_kit.report.quantities import as_number, clock, duration, metric, words
from functorch_kit.report.tables import as_fields, program_table
from functorch_kit.report.terminal import Stream, is_live, rich_console, write_line

_REDRAW_SECONDS = 0.1
_PLAIN_LINES = 10
_NOT_METRICS = ("step", "split", "best", "seconds")


class RunConsole:
    """What a run says while it trains.

    On a terminal a bar with step, metrics, steps per second and time left is redrawn in place, at
    most ten times a second; an update that redraws nothing costs less than a microsecond. In a
    pipe or a file, about one plain line is written per tenth of the run. NO_COLOR is respected.
    Nothing here fails a run: metrics may be missing, not finite or no numbers, pipes may close.

    Args:
        title: the run's name.
        total_steps: the step at which the run ends.
        quiet: print nothing at all.
        first_step: the step that a resumed run starts from.
        stream: where to print; standard output if None.

    Example:
        >>> with RunConsole("digits", total_steps=400) as console:
        ...     console.line("classification of 8 × 8 images")
        ...     console.evaluation({"step": 20, "split": "validation", "accuracy": 0.975})
        classification of 8 × 8 images
        step     20  validation  accuracy 97.50 %
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        quiet: bool = False,
        *,
        first_step: int = 0,
        stream: Stream | None = None,
    ) -> None:
        self._title = title
        self._total = max(int(total_steps), 0)
        self._first = first_step
        self._quiet = quiet
        self._stream = stream or sys.stdout
        self._rich: Any = None if quiet or not is_live(self._stream) else rich_console(self._stream)
        self._live: Any = None
        self._closed = False
        self._programs: list[dict[str, Any]] = []
        self._step = first_step
        self._row: Mapping[str, Any] = {}
        self._latest_evaluation: Mapping[str, Any] = {}
        self._shown_step = first_step
        self._rate: float | None = None
        self._mark = (perf_counter(), first_step)
        self._next_draw = 0.0
        self._next_line = first_step + self._tenth(1)

    @contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Say, while the ``with`` block lasts, that a program is being compiled.

        A terminal shows the seconds go by; a pipe gets one line, and only after five seconds.

        Args:
            name: the program's name.

        Example:
            >>> with RunConsole("digits", total_steps=400) as console:
            ...     with console.compiling("train_step"):
            ...         pass
        """
        text = f"compiling {name}"
        # Where the bar is drawn already, there is no second live line: the bar stands still.
        if self._quiet or self._live is not None:
            yield
        elif self._rich is None:
            with line_if_slow(text, self._print):
                yield
        else:
            with line_that_counts(text, self._rich, redirect=self._stream is sys.stdout):
                yield
        self._mark = (perf_counter(), self._step)

    def program(self, report: Any) -> None:
        """Say that a program was compiled; the table of all programs follows before training.

        Args:
            report: fields of a ``ProgramReport`` as a dict, or the report itself.
        """
        if self._quiet:
            return
        fields = as_fields(report)
        self._programs.append(fields)
        verb = "loaded" if fields.get("from_cache") else "compiled"
        origin = " (from cache)" if fields.get("from_cache") else ""
        name, seconds = fields.get("name", "program"), fields.get("compile_seconds")
        self.line(f"{verb} {name} in {duration(seconds)}{origin}")
        self._mark = (perf_counter(), self._step)

    def update(self, step: int, row: Mapping[str, Any]) -> None:
        """Tell how far the run is; cheap enough to call for each step.

        Args:
            step: steps done.
            row: the latest training metrics; they are read only when something is drawn.
        """
        if self._quiet:
            return
        self._step, self._row = step, row
        if self._rich is not None:
            now = perf_counter()
            if now >= self._next_draw:
                self._next_draw = now + _REDRAW_SECONDS
                self._draw()
        elif step >= self._next_line:
            self._write_progress()

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Print a line that stays: the result of an evaluation.

        Args:
            row: ``step``, ``split`` and metrics; ``seconds`` and ``best`` (bool) if known.
        """
        if self._quiet:
            return
        self._latest_evaluation = row
        self._show_programs()
        step, split = str(row.get("step", self._step)), str(row.get("split", "validation"))
        parts = [f"step {step:>6}", f"{split:<10}", *_metrics(row)]
        seconds = as_number(row.get("seconds"))
        if seconds is not None:
            parts.append(duration(seconds))
        if row.get("best"):
            parts.append("best so far")
        self._print("  ".join(parts), style="green" if row.get("best") else "")

    def line(self, text: str) -> None:
        """Print a line of text that stays, above the bar where there is one.

        Args:
            text: the text, shown as it is (no markup).
        """
        if not self._quiet:
            self._print(text)

    def close(self) -> None:
        """Leave the bar as it stands and give the terminal back; closing twice is allowed."""
        if self._quiet or self._closed:
            return
        self._closed = True
        self._show_programs()
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None
        elif self._rich is None and self._step > self._shown_step:
            self._write_progress()

    def __enter__(self) -> RunConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tenth(self, number: int) -> int:
        return max(1, (number * (self._total - self._first) + _PLAIN_LINES - 1) // _PLAIN_LINES)

    def _print(self, text: str, style: str = "") -> None:
        if self._rich is None:
            if not write_line(self._stream, text):
                self._quiet = True  # nobody reads any more; the record on disk goes on
            return
        from rich.text import Text

        self._rich.print(Text(text, style=style), soft_wrap=True)

    def _show_programs(self) -> None:
        if not self._programs:
            return
        table, self._programs = program_table(self._programs), []
        if self._rich is None:
            self._print(table.plain())
        else:
            self._rich.print(table.rich())

    def _measure(self) -> float | None:
        """Steps per second, smoothed over redraws; None until two moments are known."""
        now, (then, step) = perf_counter(), self._mark
        if self._step > step and now > then:
            rate = (self._step - step) / (now - then)
            # On a terminal a redraw comes ten times a second: a mean over about two seconds.
            share = min(1.0, (now - then) / 2.0) if self._rate is not None else 1.0
            self._rate = rate if self._rate is None else self._rate + share * (rate - self._rate)
            self._mark = (now, self._step)
        return self._rate

    def _progress(self) -> tuple[str, str, str]:
        rate = self._measure()
        left = None if not rate else (self._total - self._step) / rate
        speed = "- steps/s" if rate is None else f"{rate:,.{0 if rate >= 100 else 1}f} steps/s"
        return f"{self._step:,}/{self._total:,}", speed, f"ETA {clock(left)}"

    def _write_progress(self) -> None:
        self._show_programs()
        steps, speed, left = self._progress()
        share = f"{100 * self._step // max(self._total, 1):3d} %"
        width = 2 * len(f"{self._total:,}") + 1
        parts = [f"step {steps:>{width}}", share, *_metrics(self._row), speed, left]
        self._print("  ".join(parts))
        self._shown_step = self._step
        done = (self._step - self._first) * _PLAIN_LINES // max(self._total - self._first, 1)
        self._next_line = max(self._step + 1, self._first + self._tenth(done + 1))

    def _draw(self) -> None:
        from rich.live import Live

        if self._live is None:
            self._show_programs()
            own = self._stream is sys.stdout
            self._live = Live(
                console=self._rich,
                auto_refresh=False,
                redirect_stdout=own,
                redirect_stderr=own,
                vertical_overflow="crop",
            )
            self._live.start()
        self._live.update(self._bar(), refresh=True)

    def _bar(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table as RichTable
        from rich.text import Text

        steps, speed, left = self._progress()
        grid = RichTable.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
        grid.add_column(ratio=1, min_width=8)
        for _ in range(3):
            grid.add_column(no_wrap=True, justify="right")
        done = min(self._step, self._total) if self._total else self._step
        bar = ProgressBar(total=max(self._total, 1), completed=done, complete_style="cyan")
        grid.add_row(Text(self._title, style="bold"), bar, steps, speed, left)
        latest, texts = self._latest_evaluation, ["train", *_metrics(self._row)]
        if latest:
            texts += ["·", str(latest.get("split", "validation")), *_metrics(latest)]
        return Group(grid, Text("  ".join(texts), no_wrap=True, overflow="ellipsis"))


def _metrics(row: Mapping[str, Any]) -> list[str]:
    # What comes out of a compiled program is in alphabetical order; people look for the loss first.
    names = sorted((name for name in row if name not in _NOT_METRICS), key=lambda n: n != "loss")
    return [
        f"{words(str(name))} {metric(str(name), row[name])}"
        for name in names
        if as_number(row[name]) is not None
    ]
