"""The lecture's scripts are found beside each other, as where a user starts them."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, standard_promotion: None) -> Callable[[str], ModuleType]:
    """``load("09_by_hand")``: a script of experiments/lecture as a module; optax runs in most."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS / "lecture"))
    return importlib.import_module


@pytest.fixture
def script(
    script_environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``script("experiments/train.py", …)`` in a process of its own, in an empty folder."""

    def start(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(EXPERIMENTS.parent / name), *words],
            env=script_environment | {"PYTHONPATH": str(EXPERIMENTS.parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return start
