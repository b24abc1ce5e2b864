"""A run to do faults to, what it comes to undisturbed, and the table of what was tried.

``python -m pytest -m soak tests/faults --fault-table docs`` does the long forms and writes
``docs/faults.json`` and ``docs/faults.md``; rows of tests that were not run stay as they were.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADER = """# Faults that a run survives

Made by `python -m pytest -m soak tests/faults --fault-table docs`. How each is done stands in
`tests/faults`; a short form of each runs with the ordinary tests. Rows M1 are guards taken out of
the source, one by one, to see that a test fails without it.

| fault | what was tried | times | result | date | machine |
|---|---|---|---|---|---|
"""


@dataclasses.dataclass
class Row:
    """One line of the table."""

    fault: str
    tried: str
    count: int = 0
    result: str = ""
    date: str = ""
    machine: str = ""


def machine() -> str:
    """Processor, cores, system, and the versions that matter."""
    import jax

    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()}, jax {jax.__version__}"
    )


class Table:
    """Rows of a session; a test that fails leaves a row that says so."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.rows: list[Row] = []

    @contextlib.contextmanager
    def row(self, fault: str, tried: str) -> Iterator[Row]:
        """A row to count in and to set the result of."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        row = Row(fault, tried, date=today, machine=machine())
        self.rows.append(row)
        try:
            yield row
        except BaseException as error:
            row.result = f"FAILED: {type(error).__name__}"
            raise
        finally:
            self.write()

    def write(self) -> None:
        """Put this session's rows in the place of former ones of the same name."""
        if self.folder is None:
            return
        path = self.folder / "faults.json"
        before = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = {(row["fault"], row["tried"]): row for row in before}
        rows |= {(row.fault, row.tried): dataclasses.asdict(row) for row in self.rows}
        ordered = sorted(rows.values(), key=_order)
        path.write_text(json.dumps({"rows": ordered}, indent=1, ensure_ascii=False) + "\n")
        lines = [" | ".join(str(value) for value in row.values()) for row in ordered]
        (self.folder / "faults.md").write_text(HEADER + "".join(f"| {line} |\n" for line in lines))


def _order(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["fault"][0], int(row["fault"][1:]), row["tried"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the table goes; known when tests/faults is named on the command line."""
    parser.addoption("--fault-table", type=Path, help="folder for faults.json and faults.md")


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    """The table that soak tests write their rows in."""
    return Table(pytestconfig.getoption("--fault-table", default=None))


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """``launch(folder, …)``: the run of training.py in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("FUNCTORCH_KIT_CACHE", None)  # what one compiles serves them all
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, *options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "training.py"), str(folder)]
            + [str(option) for option in options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What the run comes to when nothing is done to it."""

    hash: str
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run, once: with a warm compile cache in the second of two where the first filled it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    out, err = launch(folder / "run").communicate(timeout=300)
    assert len(out) == 65, err
    return Undisturbed(out.strip(), time.monotonic() - began)
