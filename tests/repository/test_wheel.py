"""A wheel, installed elsewhere with the core dependencies only, does the everyday things."""

import os
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
UNREACHABLE = (
    "connection broken",
    "connectionerror",
    "name resolution",
    "network is unreachable",
    "timed out",
)
EVERYDAY = """
import importlib.util
import numpy as np, optax
import functorch_kit as fk

for extra in ("hydra", "sklearn", "matplotlib", "rich", "tensorboardX", "flax", "pytest"):
    assert importlib.util.find_spec(extra) is None, extra

x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)
model = fk.nn.serial(hidden=fk.nn.dense(16), act=fk.nn.relu, head=fk.nn.dense(2))
data = fk.data.arrays(x, y, batch_size=32, seed=0)
result = fk.fit(model, fk.train.classification(model),
                optimizer=lambda h: optax.adam(h["learning_rate"]),
                hparams={"learning_rate": 1e-3}, data=data, steps=20, seed=0)
print("steps", int(result.state.step))
print([v["name"] for v in fk.compare(lambda a: a @ a, np.eye(8, dtype=np.float32),
                                     rounds=2, steps=2).to_dict()["variants"]])
print("from", fk.__file__)
"""


def _pip(*arguments: str | Path, python: str | Path = sys.executable) -> None:
    """Run pip; where no registry answers, skip, but never in CI, where that would hide a fault."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--retries", "1", *arguments]
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    output = result.stdout + result.stderr
    unreachable = any(words in output.lower() for words in UNREACHABLE)
    if result.returncode and unreachable and not os.environ.get("CI"):
        pytest.skip("pip reaches no package registry")
    assert result.returncode == 0, output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_alone(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert folders == {"functorch_kit", next(f for f in folders if f.endswith(".dist-info"))}
    assert "functorch_kit/py.typed" in names
    sources = {file.relative_to(ROOT).as_posix() for file in (ROOT / "functorch_kit").rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


def test_the_wheel_states_version_licence_and_core_dependencies(wheel: Path):
    import functorch_kit

    archive = zipfile.ZipFile(wheel)
    folder = next(n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n)
    metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    assert metadata["Version"] == functorch_kit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    required = metadata.get_all("Requires-Dist", [])
    core = {line.split(">")[0] for line in required if "extra ==" not in line}
    assert core == {"jax", "jaxtyping", "numpy", "optax", "orbax-checkpoint", "pyyaml"}


def test_an_installed_wheel_trains_and_compares_outside_the_clone(
    wheel: Path, tmp_path: Path, script_environment: dict[str, str]
):
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    _pip("install", "--quiet", wheel, python=python)
    environment = {k: v for k, v in script_environment.items() if not k.startswith("PYTHON")}
    result = subprocess.run(
        [str(python), "-W", "error", "-c", EVERYDAY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "steps 20" in result.stdout
    assert "['eager', 'disable_jit', 'jit', 'aot', 'scan']" in result.stdout
    assert str(home) in result.stdout.split("from ")[-1]
