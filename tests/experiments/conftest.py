"""Scripts as a user starts them, and the same in this process where only the answer matters."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


class Ended(NamedTuple):
    """How a script ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]

    @property
    def complaint(self) -> str:
        """The one line of a refusal; checked to be one, with exit code 2 and nothing printed."""
        assert self.code == 2, self
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("error: ").rstrip("\n")


Script = Callable[..., Ended]


@pytest.fixture
def script(script_environment: dict[str, str], tmp_path: Path) -> Script:
    """``script("train.py", "train.steps=2", …)`` in a process and an empty folder of its own.

    ``path`` is looked for modules as well, plugins of Hydra among them.
    """

    def start(name: str, *arguments: str, path: Path = ROOT) -> Ended:
        # The repository need not be installed for its tests.
        environment = {**script_environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
        ended = subprocess.run(
            [sys.executable, str(EXPERIMENTS / name), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return start


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Script]:
    """As ``script``, in this process: quicker, for commands that are answered before they run."""
    import runpy

    modules = set(sys.modules)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    # Before runpy calls this process a script, whose signals the frame would see to.
    importlib.import_module("frame")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.chdir(tmp_path)

    def start(name: str, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(EXPERIMENTS / name), run_name="__main__")
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Ended(left.value.code, printed.out, printed.err)

    yield start
    for name in ("frame", "command_line", "exporting", "outcome", "stopping", "sweeping"):
        if name not in modules:
            sys.modules.pop(name, None)
