"""functorch's examples of second derivatives run, and their figures say what they should."""

import ast
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SCRIPTS = Path(__file__).parents[2] / "experiments" / "functorch"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    standard_promotion: None,
) -> Iterator[Run]:
    """``run("ntk")``: the figures that a script prints with --quick."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def value(text: str) -> Any:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            return text

    def start(name: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, "--quick"])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        lines = (line.split(": ", 1) for line in printed.out.splitlines())
        return {name: value(text) for name, text in lines}

    yield start
    sys.modules.pop("task", None)


def test_hessians_are_those_of_differences_and_the_spectrum_is_told(run: Run):
    found = run("hessians")
    assert found["layer_difference"] < 0.05
    for when in ("before", "after"):
        top = found[f"{when}_gauss_newton_top"]
        assert top == sorted(top, reverse=True)
        assert min(top) > 0
        assert " ± " in found[f"{when}_hessian_trace"]
    assert found["test_loss_laplace"] > 0


def test_maml_is_trained_and_adapts_on_new_tasks(run: Run):
    found = run("maml_sinusoids")
    for name in ("maml", "first_order"):
        assert found[f"{name}_after_10"] < found[f"{name}_after_0"]


def test_a_kernel_is_computed_by_the_fastest_method_and_agrees_with_its_products(run: Run):
    found = run("ntk")
    assert found["full_shape"] == (3, 2, 10, 10)
    times = {name: found[f"full_{name}_ms"] for name in ("jacobian", "structured", "vector")}
    assert found["full_method"] == min(times, key=lambda name: times[name])
    assert found["product_difference"] < 1e-4


def test_a_potential_is_learned_from_energies_and_forces(run: Run):
    found = run("lennard_jones")
    assert set(found) == {
        f"{name}_{what}_error"
        for name in ("energy_and_force", "energy_alone")
        for what in ("energy", "force")
    }
    assert all(0 < error < 10 for error in found.values())
