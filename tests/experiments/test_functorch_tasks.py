"""functorch's examples run, and their figures say what they should."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "experiments" / "functorch"
Run = Callable[..., dict[str, float]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    standard_promotion: None,
) -> Iterator[Run]:
    """``run("jacobians")``: the figures that a script prints with --quick."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def start(name: str, *arguments: str) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", [name, "--quick", *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        lines = (line.split(": ", 1) for line in printed.out.splitlines())
        return {key: float(value) for key, value in lines if key != "plot"}

    yield start
    sys.modules.pop("task", None)


@pytest.mark.soak
def test_per_sample_gradients_are_those_of_a_loop_in_the_same_memory_for_every_size(run: Run):
    found = run("per_sample_gradients")
    assert found["largest_difference_from_a_loop"] < 1e-5
    held = [value for name, value in found.items() if name.startswith("bytes_in_between")]
    assert len(held) == 2
    assert held[1] < 1.3 * held[0]


def test_jacobians_agree_in_every_mode_and_a_bottleneck_can_be_gone_through(run: Run):
    found = run("jacobians")
    assert "64_16_64_mixed_us" in found
    assert "16_16_mixed_us" not in found
    differences = [value for name, value in found.items() if name.endswith("_difference")]
    assert max(differences) < 1e-4


def test_an_ensemble_is_trained_and_its_calibration_drawn(run: Run, tmp_path: Path):
    found = run("model_ensembling", "--plot", str(tmp_path / "calibration.svg"))
    assert found["ensemble_nll"] <= found["member_nll"]  # by Jensen's inequality, always
    assert 0 <= found["ensemble_ece"] <= 1
    assert "<svg" in (tmp_path / "calibration.svg").read_text()


def test_private_training_keeps_its_budget(run: Run):
    pytest.importorskip("dp_accounting", reason="the extra `dp` is not installed")
    found = run("dp_training", "--epsilon", "4")
    assert found["epsilon"] <= 4
    assert 0 <= found["share_clipped"] <= 1


def test_without_the_accountant_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], standard_promotion: None
):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    monkeypatch.setattr(sys, "argv", ["dp_training", "--quick"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPTS / "dp_training.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert printed.err == (
        "error: the budget is counted by dp-accounting: pip install 'functorch_kit[dp]'\n"
    )
    sys.modules.pop("task", None)
