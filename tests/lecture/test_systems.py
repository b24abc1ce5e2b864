"""The table of systems: every command is there, runs in its short form, and stands on the page."""

import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[2]
# Run in their short form by tests of their own, in one process: test_examples, test_measurements.
IN_PROCESS = {
    *(f"{number:02}" for number in range(1, 20)),
    *("cpu_and_gpu", "static_and_dynamic", "data_bottleneck", "any_backend", "define_once"),
    *("adapters", "deployed"),
}


def test_every_command_is_a_script_that_is_there(load: Load):
    for system in load("systems").SYSTEMS:
        for words in (shlex.split(system.command), shlex.split(system.quick)):
            assert (ROOT / words[0]).is_file(), system.name
        assert shlex.split(system.quick)[0] == shlex.split(system.command)[0]


def test_the_page_has_every_system_with_its_command(load: Load):
    page = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
    assert page.startswith(load("systems").HEAD)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    shown = [(row[0].removeprefix("| "), row[1], row[2]) for row in rows]
    assert shown == [
        (system.name, system.idea, f"`python {system.command}`")
        for system in load("systems").SYSTEMS
    ]
    assert "not run yet" not in page


def test_commands_of_other_scripts_run_in_their_short_form(load: Load, tmp_path: Path, script):
    """One process for all comparisons, and one training run."""
    systems = load("systems")
    others = [each for each in systems.SYSTEMS if "lecture/" not in each.command]
    assert {Path(each.command.split()[0]).name for each in others} == {
        *("compare.py", "train.py", "cnn.py")
    }
    compared = [each for each in others if "compare.py" in each.command]
    variants = {word for each in compared for word in _variants(each.command)}
    assert variants == {"eager", "jit", "bf16", "sharded=2"}
    together = compared[0].quick.replace(
        ",".join(_variants(compared[0].command)), "eager,jit,bf16,sharded=2"
    )
    ended = script(*shlex.split(together)[:1], *shlex.split(together)[1:])
    assert ended.returncode == 0, ended.stderr
    for system in compared:
        assert "ms a step" in system.told(ended.stdout, tmp_path)
    trained = [each for each in others if "train.py" in each.command]
    assert len({each.quick for each in trained}) == 1
    ended = script(*shlex.split(trained[0].quick))
    assert ended.returncode == 0, ended.stderr
    for system in trained:
        assert "left: " in system.told(ended.stdout, tmp_path)


def test_commands_of_this_folder_are_run_by_other_tests(load: Load):
    for system in load("systems").SYSTEMS:
        name = Path(system.command.split()[0]).stem
        assert "lecture/" not in system.command or {name, name[:2]} & IN_PROCESS, name


def test_a_line_that_was_not_printed_is_missed(load: Load, tmp_path: Path):
    systems = load("systems")
    assert systems.lines("loss")("  loss   0.5\n", tmp_path) == "loss 0.5"
    with pytest.raises(LookupError, match="'accuracy'"):
        systems.lines("loss", "accuracy")("  loss   0.5\n", tmp_path)
    with pytest.raises(LookupError, match="report"):
        systems.left("report.html")("done\n", tmp_path)


def test_the_ratio_of_the_headline_table_is_read_from_its_own_column(load: Load, tmp_path: Path):
    output = "\n".join(
        [
            "milliseconds a pass on cpu",
            "net  forward  backward  total  eager  naive  bf16  cpu  naive/ours  cpu/ours  | cuDNN",
            "resnet18  400.00  800.00  1200  –  3000  –  –  2.50  –  | 31.54",
        ]
    )
    told = load("systems").naive_against_library(output, tmp_path)
    assert told == "resnet18: library 1200 ms a pass, naive 3000 ms, 2.50 times as long"


@pytest.mark.soak
def test_every_command_runs_in_its_short_form_as_a_process(load: Load, tmp_path: Path):
    page = tmp_path / "page.md"
    assert load("systems").main(["--quick", "--write", str(page)]) == 0
    assert "not run yet" not in page.read_text(encoding="utf-8")


def test_rows_that_are_not_run_again_stay_on_the_page_unless_their_command_changed(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    systems, page = load("systems"), tmp_path / "page.md"
    one, other = systems.SYSTEMS[:2]
    page.write_text(systems.table({one.name: "a", other.name: "b"}), encoding="utf-8")
    monkeypatch.setattr(systems, "SYSTEMS", (one, other._replace(command="another.py")))
    assert systems.answers_on(page) == {one.name: "a"}


def _variants(command: str) -> list[str]:
    return command.split("variants=[")[1].split("]")[0].split(",")
