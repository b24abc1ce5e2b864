"""The frame of the benchmarks: alternation, ratios, and what becomes of a contender that fails."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str], ModuleType]

# Writes its name in a journal; prints samples that depend on how often it ran before.
CONTENDER = """
import json, sys
name, journal, *figures = sys.argv[1:]
before = open(journal, "a+")
before.seek(0)
runs = before.read().split().count(name)
before.write(name + "\\n")
print("chatter of a library")
print(json.dumps({"samples": [float(figures[runs])], "unit": "s", "accuracy": runs / 10}))
"""


@pytest.fixture
def contest(load: Load) -> ModuleType:
    return load("contest")


@pytest.fixture
def pythons(contest: ModuleType) -> Any:
    return contest.Pythons(sys.executable, sys.executable)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(source: str) -> str:
        path = tmp_path / f"script_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(source, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def command_line(
    contest: ModuleType, load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run a benchmark of given comparisons; its exit code and its JSON file."""
    surroundings = load("surroundings")
    still = {"ceiling_gflops": 100.0, "device": "cpu cpu", "functorch_kit": "0.1.0"}
    monkeypatch.setattr(surroundings, "ceiling", lambda python: still)

    def run(comparisons: list[Any], *arguments: str) -> tuple[int, dict[str, Any]]:
        file = tmp_path / "results" / "rows.json"
        words = ["--json", str(file), *arguments]
        code = contest.main("A benchmark.", lambda options: comparisons, pairs=3, arguments=words)
        return code, json.loads(file.read_text(encoding="utf-8"))

    return run


def _printing(contest: ModuleType, path: str, *arguments: object, **options: Any) -> Any:
    return contest.Contender([path, *map(str, arguments)], timing="printed", **options)


def test_contenders_alternate_and_the_first_pair_does_not_count(
    contest: ModuleType, pythons: Any, script: Callable[[str], str], tmp_path: Path
):
    path, journal = script(CONTENDER), tmp_path / "journal"
    ours = _printing(contest, path, "a", journal, 900, 2, 3, 8)
    theirs = _printing(contest, path, "b", journal, 1, 4, 4, 4)
    comparison = contest.Comparison("work", "peer", "s", ours, theirs, facts=["accuracy"])
    row = contest.compete(comparison, pythons, 3, tmp_path)
    assert journal.read_text().split() == ["a", "b"] * 4
    # Ratios of the pairs: 2/4, 3/4, 8/4.
    assert (row["ratio"], row["low"], row["high"]) == (0.75, 0.5, 2.0)
    assert (row["ours"], row["theirs"], row["pairs"]) == (3, 4, 3)
    assert row["note"] == "accuracy: ours 0.2, theirs 0.2"


def test_the_ratio_is_taken_pair_by_pair(
    contest: ModuleType, pythons: Any, script: Callable[[str], str], tmp_path: Path
):
    # The machine is ten times slower during the second pair: no ratio may cross pairs.
    path, journal = script(CONTENDER), tmp_path / "journal"
    ours = _printing(contest, path, "a", journal, 1, 1, 10, 1)
    theirs = _printing(contest, path, "b", journal, 1, 2, 20, 2)
    row = contest.compete(
        contest.Comparison("work", "peer", "s", ours, theirs), pythons, 3, tmp_path
    )
    assert (row["low"], row["ratio"], row["high"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (1, 1, 1),
        (5, 1, 5),  # 1 - 2/2**5 = 93.8 %: it cannot be wider
        (6, 1, 6),  # 96.9 %
        (8, 1, 8),  # (2, 7) would hold 93.0 %
        (9, 2, 8),  # 96.1 %
        (10, 2, 9),  # 97.9 %
        (30, 10, 21),  # 95.7 %, the table of the sign test
    ],
)
def test_the_interval_is_that_of_the_sign_test(
    contest: ModuleType, count: int, low: int, high: int
):
    shuffled = [float(1 + 7 * i % count) for i in range(count)]
    assert sorted(shuffled) == [float(i + 1) for i in range(count)]
    assert contest.median_interval(shuffled) == (low, high)


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(
    contest: ModuleType,
    command_line: Callable[..., tuple[int, dict[str, Any]]],
    script: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
):
    path = script("print('{\"samples\": [1.0]}')")
    theirs = _printing(contest, path, in_peer_python=True, requires=["json", "no_such_library"])
    code, found = command_line(
        [contest.Comparison("work", "absent", "s", _printing(contest, path), theirs)]
    )
    (row,) = found["rows"]
    assert code == 0
    assert (row["peer"], row["ratio"], row["pairs"]) == ("absent", None, 0)
    assert row["note"] == "not installed in the peers' environment: no_such_library"
    assert row["note"] in capsys.readouterr().out


def test_a_contender_that_crashes_is_a_row_and_exit_code_1_and_the_others_run(
    contest: ModuleType,
    command_line: Callable[..., tuple[int, dict[str, Any]]],
    script: Callable[[str], str],
):
    fine = _printing(contest, script("print('{\"samples\": [2.0]}')"))
    broken = _printing(contest, script("raise ValueError('no digits here')"))
    code, found = command_line(
        [
            contest.Comparison("work", "broken", "s", fine, broken),
            contest.Comparison("work", "fine", "s", fine, fine),
        ],
        "--quick",
    )
    assert code == 1
    assert [row["ratio"] for row in found["rows"]] == [None, 1.0]
    assert found["rows"][0]["note"] == "theirs failed: exit code 1: ValueError: no digits here"
    assert found["rows"][1]["pairs"] == 1


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "no JSON object"),
        ("print('[1.0]')", "no JSON object"),
        ("print('{\"samples\": []}')", "not positive numbers"),
        ("print('{\"samples\": [0.0]}')", "not positive numbers"),
        ("print('{\"samples\": [NaN]}')", "not positive numbers"),
        ("print('{\"samples\": [Infinity]}')", "not positive numbers"),
        ('print(\'{"samples": [1.0], "unit": "ms"}\')', "measured in ms, not in s"),
    ],
)
def test_a_contender_without_a_usable_figure_has_failed(
    contest: ModuleType,
    pythons: Any,
    script: Callable[[str], str],
    tmp_path: Path,
    source: str,
    complaint: str,
):
    contender = _printing(contest, script(source))
    comparison = contest.Comparison("work", "peer", "s", contender, contender)
    row = contest.compete(comparison, pythons, 1, tmp_path)
    assert row["ratio"] is None
    assert row["note"].startswith("ours failed: ")
    assert complaint in row["note"]


def test_a_contender_that_does_not_end_has_failed(
    contest: ModuleType,
    pythons: Any,
    script: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(contest, "SECONDS_AT_MOST", 0.2)
    endless = _printing(contest, script("import time; time.sleep(60)"))
    comparison = contest.Comparison("work", "peer", "s", endless, endless)
    assert "no end after" in contest.compete(comparison, pythons, 1, tmp_path)["note"]


def test_a_whole_process_is_clocked_and_its_facts_are_read_from_its_file(
    contest: ModuleType, pythons: Any, script: Callable[[str], str], tmp_path: Path
):
    path = script("import sys; open(sys.argv[1], 'w').write('{\"test_accuracy\": 0.5}')")
    contender = contest.Contender([path, "{folder}/summary.json"], facts="{folder}/summary.json")
    comparison = contest.Comparison(
        "work", "peer", "s", contender, contender, facts=["test_accuracy", "other"]
    )
    row = contest.compete(comparison, pythons, 2, tmp_path)
    assert row["ours"] > 0
    assert row["low"] <= row["ratio"] <= row["high"]
    expected = "test_accuracy: ours 0.5, theirs 0.5; other: ours unknown, theirs unknown"
    assert row["note"] == expected


def test_facts_that_are_not_there_are_a_failure(
    contest: ModuleType, pythons: Any, script: Callable[[str], str], tmp_path: Path
):
    contender = contest.Contender([script("")], facts="{folder}/summary.json")
    comparison = contest.Comparison("work", "peer", "s", contender, contender)
    assert "cannot be read" in contest.compete(comparison, pythons, 1, tmp_path)["note"]


def test_each_start_has_a_fresh_folder_and_the_cache_lasts(
    contest: ModuleType, pythons: Any, script: Callable[[str], str], tmp_path: Path
):
    source = """
    import json, os, sys
    folder, cache = sys.argv[1], os.environ["CACHE"]
    seen = os.path.join(cache, "seen")
    known = open(seen).read().split() if os.path.exists(seen) else []
    assert folder not in known and not os.listdir(folder)
    open(os.path.join(folder, "mine"), "w")
    open(seen, "a").write(folder + "\\n")
    print(json.dumps({"samples": [1.0], "gone": os.environ.get("JAX_COMPILATION_CACHE_DIR")}))
    """
    path = script("\n".join(line.strip() for line in source.splitlines()))
    contender = _printing(contest, path, "{folder}", environment={"CACHE": "{cache}"})
    comparison = contest.Comparison("work", "peer", "s", contender, contender)
    assert contest.compete(comparison, pythons, 2, tmp_path)["ratio"] == 1
    folders = (tmp_path / "seen").read_text().split()
    assert len(set(folders)) == 6
    assert not any(Path(folder).exists() for folder in folders)


def test_a_cache_that_the_caller_configured_serves_neither_side(
    contest: ModuleType,
    pythons: Any,
    script: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "somewhere")
    monkeypatch.setenv("FUNCTORCH_KIT_CACHE", "off")
    path = script(
        "import os, json\n"
        "names = ('JAX_COMPILATION_CACHE_DIR', 'FUNCTORCH_KIT_CACHE', 'GIVEN')\n"
        "print(json.dumps({'samples': [1.0], 'set': [n for n in names if n in os.environ]}))"
    )
    given = {"JAX_COMPILATION_CACHE_DIR": "{cache}/xla", "GIVEN": None}
    monkeypatch.setenv("GIVEN", "1")
    _, facts, _ = contest.start(_printing(contest, path), sys.executable, tmp_path)
    assert facts["set"] == ["GIVEN"]
    _, facts, _ = contest.start(
        _printing(contest, path, environment=given), sys.executable, tmp_path
    )
    assert facts["set"] == ["JAX_COMPILATION_CACHE_DIR"]


def test_the_file_has_a_head_and_rows_of_the_agreed_entries(
    contest: ModuleType,
    command_line: Callable[..., tuple[int, dict[str, Any]]],
    script: Callable[[str], str],
):
    contender = _printing(contest, script("print('{\"samples\": [1.0, 3.0, 8.0]}')"))
    comparison = contest.Comparison("work", "peer", "s", contender, contender, note="a note")
    code, found = command_line([comparison], "--pairs", "2")
    assert code == 0
    assert found["rows"] == [
        {
            "work": "work",
            "peer": "peer",
            "ours": 3.0,
            "theirs": 3.0,
            "unit": "s",
            "ratio": 1.0,
            "low": 1.0,
            "high": 1.0,
            "pairs": 2,
            "note": "a note",
        }
    ]
    head = found["head"]
    assert {"machine", "versions", "date", "command", "ceiling_gflops"} <= set(head)
    assert {"cpu", "cores", "load_average", "device"} <= set(head["machine"])
    assert set(head["versions"]) == {"ours", "peers"}
    assert {"python", "jax", "numpy"} <= set(head["versions"]["peers"])


@pytest.mark.parametrize("pairs", ["0", "-1", "some"])
def test_a_number_of_pairs_below_one_is_refused(contest: ModuleType, pairs: str):
    with pytest.raises(SystemExit) as refusal:
        contest.main("A benchmark.", lambda options: [], pairs=1, arguments=["--pairs", pairs])
    assert refusal.value.code == 2


def test_a_peer_python_that_does_not_start_is_named(load: Load):
    with pytest.raises(SystemExit, match="no/such/python cannot be started"):
        load("surroundings").versions("no/such/python")


def test_the_ceiling_is_measured_in_a_process_of_its_own(load: Load):
    found = load("surroundings").ceiling(sys.executable)
    assert found["ceiling_gflops"] > 0
    assert found["device"].startswith("cpu")
