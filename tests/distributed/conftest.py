"""What the tests of this room share: jobs in this process and in one with more devices."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROOFS = Path(__file__).parent / "proofs.py"


@pytest.fixture(scope="session")
def proofs() -> ModuleType:
    """``proofs.py`` as a module."""
    spec = importlib.util.spec_from_file_location("proofs", PROOFS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def on_devices(script_environment: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """``on_devices(8, steps, job, *meshes)``: what ``proofs.py`` finds, by mesh."""

    def run(devices: int, steps: int, job: str, *meshes: str) -> dict[str, Any]:
        environment = {**script_environment, "PYTHONPATH": str(ROOT)}
        environment.pop("JAX_NUM_CPU_DEVICES", None)
        ended = subprocess.run(
            [sys.executable, str(PROOFS), str(devices), str(steps), job, *meshes],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ended.returncode == 0, ended.stderr
        rows = [json.loads(line) for line in ended.stdout.splitlines()]
        return {row["mesh"]: row for row in rows}

    return run
