"""A line that says, with seconds, that something is being compiled: nothing else moves then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

_REDRAWS_PER_SECOND = 4
_PLAIN_AFTER_SECONDS = 5.0


@contextmanager
def line_that_counts(text: str, rich: Any, *, redirect: bool = False) -> Iterator[None]:
    """Show a text with the seconds since, redrawn in place, and take it away at the end.

    Args:
        text: what is being done.
        rich: the ``rich.console.Console`` of a terminal.
        redirect: whether other prints are to stand above the line.

    Example:
        >>> from rich.console import Console
        >>> import io
        >>> with line_that_counts("compiling", Console(file=io.StringIO())):
        ...     pass
    """
    from rich.live import Live
    from rich.text import Text

    began = perf_counter()
    # It redraws in a thread of its own: this one is inside XLA.
    with Live(
        console=rich,
        get_renderable=lambda: Text(f"{text} · {perf_counter() - began:.0f} s", style="dim"),
        refresh_per_second=_REDRAWS_PER_SECOND,
        transient=True,
        redirect_stdout=redirect,
        redirect_stderr=redirect,
    ):
        yield


@contextmanager
def line_if_slow(
    text: str, write: Callable[[str], None], seconds: float = _PLAIN_AFTER_SECONDS
) -> Iterator[None]:
    """Write one line if the ``with`` block lasts for more than a few seconds; otherwise nothing.

    Args:
        text: what is being done.
        write: called with the line, from a thread of its own.
        seconds: after how long, in s.

    Example:
        >>> import time
        >>> with line_if_slow("compiling", print, seconds=0.01):
        ...     time.sleep(0.1)
        compiling · more than 0.01 s
    """
    timer = threading.Timer(seconds, write, [f"{text} · more than {seconds:g} s"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a line that has been begun comes before what follows
