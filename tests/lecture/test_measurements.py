"""The lecture's measurements run in their short form, and leave a picture and their numbers."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]
MEASUREMENTS = ["cpu_and_gpu", "static_and_dynamic", "data_bottleneck"]


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_holds_what_it_claims_and_leaves_a_picture(
    load: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
):
    script, classroom = load(name), load("classroom")
    words = ["--quick", "--folder", str(tmp_path / "run")]
    code = classroom.run(script.example, options=script.add_options, arguments=words)
    printed = capsys.readouterr().out
    assert code == 0, printed
    check_quotes(load, name, printed)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {f"{name}.{kind}" for kind in ("svg", "png", "json")}
    svg = (tmp_path / "run" / f"{name}.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert (tmp_path / "run" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "run" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["any_backend", "define_once", "adapters", "deployed"])
def test_a_system_holds_what_it_claims(load: Load, capsys: pytest.CaptureFixture[str], name: str):
    code = load("classroom").run(load(name).example, arguments=["--quick"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    check_quotes(load, name, printed)


def test_a_library_that_is_missing_is_one_line_with_the_remedy(
    load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    adapters = load("adapters")

    def missing():
        raise ModuleNotFoundError("No module named 'flax'", name="flax")

    monkeypatch.setattr(adapters, "LIBRARIES", {"Linen": missing})
    assert load("classroom").run(adapters.example, arguments=[]) == 2
    expected = "error: flax is not installed: pip install 'functorch_kit[interop]' brings it\n"
    assert capsys.readouterr().err == expected


def check_quotes(load: Load, script: str, printed: str) -> None:
    """What the page of systems quotes of a script is printed by it."""
    for system in load("systems").SYSTEMS:
        if Path(system.command.split()[0]).stem == script:
            assert system.told(printed, Path())


def test_a_backend_that_is_missing_is_said_to_be(load: Load, tmp_path: Path):
    script = load("cpu_and_gpu")
    shown = script.example(argparse.Namespace(quick=True, folder=tmp_path))
    assert {row["platform"] for row in shown.values["rows"]} == {"cpu"}
    assert shown.figures["not here, not drawn"] == "gpu"


def test_a_function_that_gives_something_else_is_told_apart(load: Load):
    script = load("static_and_dynamic")
    function, traces = script.jitted(lambda x: x + 1)
    found = script.taken(script.Way(function, traces), [1.0, 2.0, 3])
    assert [float(each) for each in found.results] == [2.0, 3.0, 4.0]
    assert found.programs == 2  # a float and an integer
    assert len(found.first) == 3
