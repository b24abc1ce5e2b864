"""Each notebook runs from its first cell to its last, on public names alone, within its time."""

import ast
import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
IMPORTS = {"functorch_kit", "jax", "matplotlib", "numpy", "optax"}


def _private_names(source: str) -> list[str]:
    """Names with an underscore in front, and imports of rooms by their own files."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.match("_(?!_)", node.attr):
            found.append(node.attr)
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            found += [name for name in modules if name.startswith("functorch_kit.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("functorch_kit"):
            found.append(str(node.module))
    return found


def _foreign_imports(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - IMPORTS - sys.stdlib_module_names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_and_few_libraries(notebook: Path):
    source = notebook.read_text(encoding="utf-8")
    assert _private_names(source) == []
    assert _foreign_imports(source) == set()
    # What jupytext pairs it with, and the one setting behind which the full size is.
    assert "#     formats: ipynb,py:percent" in source
    assert source.count('FULL = os.environ.get("FULL") == "1"') == 1
    assert "# %% [markdown]\n# # " in source


@pytest.mark.parametrize(
    "line",
    [
        "fk.train._secret()",
        "from functorch_kit.train.step import x",
        "import functorch_kit.nn.conv",
    ],
)
def test_a_private_name_is_found(line: str):
    assert len(_private_names(f"import functorch_kit as fk\n{line}")) == 1
    assert _private_names("import functorch_kit as fk\nfk.fit()\n__name__") == []


# Each takes a few seconds on two cores; the limit is for a machine that does other things as well.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    compiled_once: None,
    notebook: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULL", raising=False)
    # The job that notebook 09 starts finds the package, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Under the conditions of whoever types it, not under those of our own code.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        runpy.run_path(str(notebook))
    assert capsys.readouterr().out
