"""The console: live on a terminal, a few plain lines in a pipe, and never in a run's way."""

import functools
import inspect
import io
import os
import re
import sys
import threading
import time
from time import perf_counter

import numpy as np
import pytest

from functorch_kit.report import RunConsole, compiling
from functorch_kit.report import console as console_module

PROGRAM = {
    "name": "train_step", "compile_seconds": 1.24, "flops": 12_345_678, "bytes_accessed": 4_520_000,
    "argument_bytes": 1_000_000, "temp_bytes": 2_000_000, "peak_bytes": 3_000_000,
    "donated": ["w", "b"], "not_donated": ["step"], "from_cache": False,
}  # fmt: skip


_END = "\x17"


class Terminal:
    """A pseudo-terminal; ``written`` is what a terminal would have received."""

    def __init__(self):
        self._reader, writer = os.openpty()
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self._received = []
        # Read all the time: a full terminal blocks whoever writes to it.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            try:
                self._received.append(os.read(self._reader, 1 << 16))
            except OSError:  # the other end is closed
                return

    def written(self):
        """What came since the last call."""
        self.stream.write(_END)
        self.stream.flush()
        while not b"".join(self._received[-2:]).endswith(_END.encode()):
            time.sleep(0.001)
        text = b"".join(self._received).decode().removesuffix(_END)
        self._received.clear()
        return text.replace("\r\n", "\n")

    def close(self):
        self.stream.close()
        self._thread.join()
        os.close(self._reader)


@pytest.fixture
def terminal(monkeypatch):
    pytest.importorskip("rich")
    for name in ("NO_COLOR", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    found = Terminal()
    yield found
    found.close()


def _train(console, steps, every=1):
    for step in range(every, steps + 1, every):
        console.update(step, {"step": step, "split": "train", "loss": 1 / step, "accuracy": 0.975})


def _unstyled(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_pipe_gets_a_line_for_each_tenth():
    stream = io.StringIO()
    with RunConsole("digits", 1000, stream=stream) as console:
        _train(console, 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    shares = [share for line in lines for share in re.findall(r"(\d+) %  loss", line)]
    assert shares == [str(share) for share in range(10, 101, 10)]
    assert re.fullmatch(
        r"step +100/1,000   10 %  loss 0\.0100  accuracy 97\.50 %  [\d,.]+ steps/s  ETA \d+:\d\d",
        lines[0],
    )
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("every", [3, 37, 400, 999])
def test_a_pipe_gets_few_lines_whatever_a_dispatch_holds(every):
    stream = io.StringIO()
    with RunConsole("digits", 1000, stream=stream) as console:
        _train(console, 1000, every)
    assert 1 <= len(stream.getvalue().splitlines()) <= 11


def test_a_run_that_stops_early_says_where():
    stream = io.StringIO()
    with RunConsole("digits", 1000, stream=stream) as console:
        _train(console, 37)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("step    37/1,000    3 %")


def test_a_resumed_run_counts_from_where_it_goes_on():
    stream = io.StringIO()
    with RunConsole("digits", 1000, first_step=900, stream=stream) as console:
        for step in range(901, 1001):
            console.update(step, {"loss": 0.5})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step   910/1,000   91 %")


def test_quiet_prints_nothing(capsys):
    with RunConsole("digits", 100, quiet=True) as console:
        console.program(PROGRAM)
        _train(console, 100)
        console.evaluation({"step": 100, "split": "validation", "loss": 0.5})
        console.line("done")
    assert capsys.readouterr() == ("", "")


def test_programs_are_said_at_once_and_tabled_before_the_first_line():
    stream = io.StringIO()
    console = RunConsole("digits", 10, stream=stream)
    console.program(PROGRAM)
    assert stream.getvalue() == "compiled train_step in 1.24 s\n"
    console.program({"name": "eval_step", "compile_seconds": 0.08, "from_cache": True})
    assert stream.getvalue().endswith("loaded eval_step in 80.0 ms (from cache)\n")
    console.update(1, {"loss": 0.5})
    text = stream.getvalue()
    assert text.index("donated buffers") < text.index("step  1/10")
    assert re.search(r"donated buffers +2 of 3 +-\n", text)
    assert re.search(r"FLOPs per step +12\.3 M +-\n", text)
    console.update(2, {"loss": 0.5})
    console.close()
    assert stream.getvalue().count("donated buffers") == 1


def test_programs_are_tabled_even_if_no_step_is_taken():
    stream = io.StringIO()
    with RunConsole("digits", 10, stream=stream) as console:
        console.program(PROGRAM)
    assert "peak memory" in stream.getvalue()


def test_an_evaluation_is_a_line_that_stays():
    stream = io.StringIO()
    with RunConsole("digits", 10, stream=stream) as console:
        console.evaluation(
            {"step": 240, "split": "validation", "loss": 0.0812, "accuracy": 0.97777,
             "seconds": 0.03, "best": True}
        )  # fmt: skip
    assert stream.getvalue() == (
        "step    240  validation  loss 0.0812  accuracy 97.78 %  30.0 ms  best so far\n"
    )


@pytest.mark.parametrize(
    "row",
    [
        {}, {"loss": None}, {"loss": float("nan")}, {"loss": "fast"}, {"loss": np.float32(0.5)},
        {"accuracy": np.zeros(3)}, {"loss": object(), "split": 3, "step": None, "best": "yes"},
    ],
)  # fmt: skip
def test_no_row_fails_a_run(row, terminal):
    for stream in (io.StringIO(), terminal.stream):
        with RunConsole("digits", 2, stream=stream) as console:
            console.update(1, row)
            console.evaluation(row)
            console.update(2, row)


@pytest.mark.parametrize("total", [0, 1])
def test_a_run_of_no_or_one_step_is_no_division_by_zero(total, terminal):
    for stream in (io.StringIO(), terminal.stream):
        with RunConsole("digits", total, stream=stream) as console:
            console.update(total, {"loss": 0.5})


def test_a_stream_without_a_reader_does_not_end_the_run():
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    with RunConsole("digits", 10, stream=stream) as console:
        console.line("nobody reads this")
        _train(console, 10)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_stream_that_knows_ascii_only_gets_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    with RunConsole("digits", 10, stream=stream) as console:
        console.program({"name": "µ-step", "compile_seconds": 4e-4})
        console.line("8 × 8 → 10 classes, größer")
    assert b"compiled u-step in 400 us" in raw.getvalue()
    assert b"8 x 8 -> 10 classes, gr??er" in raw.getvalue()


def test_square_brackets_are_text(terminal):
    for stream, read in (
        (buffer := io.StringIO(), buffer.getvalue),
        (terminal.stream, terminal.written),
    ):
        with RunConsole("[red]run[/red]", 10, stream=stream) as console:
            console.line("sweep [bold]lr[/bold]")
            console.update(1, {})
        assert "sweep [bold]lr[/bold]" in read()


def test_a_terminal_gets_a_bar_with_everything_on_it(terminal):
    with RunConsole("digits", 1000, stream=terminal.stream) as console:
        console.program(PROGRAM)
        console.update(250, {"loss": 0.25, "accuracy": 0.9})
        console.evaluation({"step": 250, "split": "validation", "accuracy": 0.95})
        console.update(500, {"loss": 0.125, "accuracy": 0.925})
    text = terminal.written()
    plain = _unstyled(text)
    assert "\x1b[" in text
    assert "━" in text
    last = plain[plain.rindex("digits") :]
    assert re.search(r"digits +━.*500/1,000 +[\d,.]+ steps/s +ETA \d+:\d\d", last)
    assert "train  loss 0.1250  accuracy 92.50 %  ·  validation  accuracy 95.00 %" in last
    assert "step    250  validation  accuracy 95.00 %" in plain
    assert plain.index("donated buffers") < plain.index("250/1,000")


def test_a_terminal_is_redrawn_at_most_ten_times_a_second(terminal):
    start = perf_counter()
    with RunConsole("digits", 10**9, stream=terminal.stream) as console:
        step = 0
        while perf_counter() - start < 0.35:
            step += 1
            console.update(step, {"loss": 0.5})
    seconds = perf_counter() - start
    assert step > 100
    # One at the start, one each tenth of a second, and the last state on closing.
    assert terminal.written().count("1,000,000,000") <= 3 + 10 * seconds


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_an_update_that_draws_nothing_takes_microseconds(kind, terminal):
    stream = terminal.stream if kind == "terminal" else io.StringIO()
    with RunConsole("digits", 10**9, stream=stream) as console:
        row = {"loss": 0.5}
        console.update(1, row)
        update = inspect.unwrap(RunConsole.update)  # as users have it, without checks of types
        fastest = float("inf")
        for _ in range(20):
            start = perf_counter()
            for step in range(1000):
                update(console, step, row)
            fastest = min(fastest, (perf_counter() - start) / 1000)
    assert fastest < 10e-6


def test_no_color_leaves_a_terminal_without_colour_and_weight(terminal, monkeypatch):
    def run():
        with RunConsole("digits", 10, stream=terminal.stream) as console:
            console.program(PROGRAM)
            console.update(5, {"loss": 0.5})
            console.evaluation({"step": 5, "best": True, "loss": 0.5})
        return re.findall(r"\x1b\[[0-9;]*m", terminal.written())

    assert run()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not run()


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with RunConsole("digits", 10, stream=terminal.stream) as console:
        _train(console, 10)
    text = terminal.written()
    assert "\x1b" not in text
    assert len(text.splitlines()) == 10


def test_the_loss_comes_first_whatever_its_place_in_the_row():
    stream = io.StringIO()
    with RunConsole("digits", 10, stream=stream) as console:
        console.evaluation({"accuracy": 0.5, "loss": 0.25, "step": 1})
    assert "loss 0.2500  accuracy 50.00 %" in stream.getvalue()


def test_a_terminal_without_rich_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with RunConsole("digits", 10, stream=terminal.stream) as console:
        _train(console, 10)
    text = terminal.written()
    assert "\x1b" not in text
    assert len(text.splitlines()) == 10


def test_an_exception_gives_the_terminal_back(terminal):
    console = RunConsole("digits", 10, stream=terminal.stream)

    def run():
        with console:
            console.update(1, {"loss": 0.5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    text = terminal.written()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    console.close()
    console.line("goes on below")
    assert "goes on below" in terminal.written()


# Compiling -------------------------------------------------------------------------------------


def test_a_terminal_counts_the_seconds_of_compiling_and_takes_the_line_away(terminal, monkeypatch):
    monkeypatch.setattr(compiling, "_REDRAWS_PER_SECOND", 50)
    clock = iter(range(10**6))  # a second passes at every look
    monkeypatch.setattr(compiling, "perf_counter", lambda: float(next(clock)))
    with RunConsole("digits", 100, stream=terminal.stream) as console:
        with console.compiling("train_step"):
            time.sleep(0.2)
        while_compiling = terminal.written()
        console.program(PROGRAM)
    seen = re.findall(r"compiling train_step · (\d+) s", _unstyled(while_compiling))
    assert len(seen) >= 3
    assert sorted(map(int, seen)) == list(map(int, seen))
    assert "\x1b[2K" in while_compiling[-12:]  # the line is erased
    assert "compiled train_step in 1.24 s" in _unstyled(terminal.written())


def test_a_pipe_hears_of_compiling_once_and_only_where_it_takes_long(monkeypatch):
    stream = io.StringIO()
    with RunConsole("digits", 100, stream=stream) as console:
        with console.compiling("train_step"):
            time.sleep(0.01)
        assert stream.getvalue() == ""
        short = functools.partial(compiling.line_if_slow, seconds=0.01)
        monkeypatch.setattr(console_module, "line_if_slow", short)
        with console.compiling("train_step"):
            time.sleep(0.2)
        assert stream.getvalue() == "compiling train_step · more than 0.01 s\n"


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_compiling_that_fails_leaves_no_thread_behind(kind, terminal):
    stream = terminal.stream if kind == "terminal" else io.StringIO()
    threads = set(threading.enumerate())
    with RunConsole("digits", 100, stream=stream) as console:
        with pytest.raises(ValueError, match="no such layer"), console.compiling("train_step"):
            raise ValueError("no such layer")
        console.line("after")
        patience = perf_counter() + 5.0  # rich tells its thread to end and does not wait for it
        while set(threading.enumerate()) - threads and perf_counter() < patience:
            time.sleep(0.01)
        assert set(threading.enumerate()) <= threads


def test_compiling_is_silent_where_quiet_was_asked_for(capsys):
    with RunConsole("digits", 100, quiet=True) as console, console.compiling("train_step"):
        pass
    assert capsys.readouterr() == ("", "")


def test_compiling_beside_the_bar_leaves_the_bar_alone(terminal):
    with RunConsole("digits", 100, stream=terminal.stream) as console:
        console.update(1, {"loss": 0.5})
        with console.compiling("predict"):
            console.update(2, {"loss": 0.5})
    assert "compiling" not in terminal.written()


def test_the_rate_of_steps_does_not_count_compiling():
    stream = io.StringIO()
    with RunConsole("digits", 1, stream=stream) as console:
        with console.compiling("init"):
            time.sleep(0.5)
        console.update(1, {"loss": 0.5})
    rate = re.search(r"([\d,.]+) steps/s", stream.getvalue())
    assert rate
    assert float(rate[1].replace(",", "")) > 4
