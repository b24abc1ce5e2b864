"""Tables on the console and the files of a comparison."""

import dataclasses
import io
import json
import math
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest

from functorch_kit.report import show_comparison, show_programs, show_summary, write_comparison

VARIANTS = [
    {"name": "eager", "error": None, "compile_seconds": 0.0, "first_call_seconds": 0.5,
     "median_seconds": 2.7e-3, "q25_seconds": 2.6e-3, "q75_seconds": 2.9e-3, "calls": 70,
     "speedup": 1.0, "gflops": 0.5, "matmul_share": 0.005, "max_difference": 0.0,
     "max_relative_difference": 0.0, "worst_leaf": None, "agrees": True},
    {"name": "jit", "error": None, "compile_seconds": 0.11, "first_call_seconds": 0.25,
     "median_seconds": 4.99e-4, "q25_seconds": 4.9e-4, "q75_seconds": 5.3e-4, "calls": 70,
     "speedup": 5.4, "gflops": 2.8, "matmul_share": 0.028, "max_difference": 1.2e-7,
     "max_relative_difference": 3e-7, "worst_leaf": "params/head/kernel", "agrees": False},
    {"name": "scan", "error": "no carry: name the argument\nthat the output replaces",
     "median_seconds": None},
]  # fmt: skip
COMPARISON = {
    "variants": VARIANTS, "flops": 1_400_000, "matmul_gflops": 101.3,
    "warnings": ["clock too coarse"],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    path: str
    output: str
    params: int
    flops: int
    own: bool = False


def _shown(show, *arguments):
    stream = io.StringIO()
    show(*arguments, stream=stream)
    return stream.getvalue()


def _cells(text, label):
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label + "  ")]
    return line.strip().removeprefix(label).split("  ")


def test_a_comparison_has_a_column_for_each_variant():
    text = _shown(show_comparison, COMPARISON)
    for label, cells in {
        "compile": ["0 s", "110 ms", "failed"], "median step": ["2.70 ms", "499 µs", "-"],
        "quartile 1": ["2.60 ms", "490 µs", "-"], "speed-up": ["1.00 ×", "5.40 ×", "-"],
        "of matmul": ["0.5 %", "2.8 %", "-"], "max difference": ["0", "1.2e-07", "-"],
    }.items():  # fmt: skip
        assert [cell.strip() for cell in _cells(text, label) if cell.strip()] == cells
    assert "1.40 M FLOPs per step; a matrix product reaches 101 GFLOP/s here" in text
    assert "scan failed: no carry: name the argument\n" in text
    assert "jit differs most in params/head/kernel, beyond the tolerance" in text
    assert "warning: clock too coarse" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_difference_that_is_not_finite_is_shown():
    spelled = {"variants": [{"name": "scan", "max_difference": "inf", "worst_leaf": "w"}]}
    assert "inf" in _shown(show_comparison, spelled)
    assert "scan differs most in w" in _shown(show_comparison, spelled)


def test_a_comparison_that_knows_nothing_is_still_a_table():
    assert "speed-up" in _shown(show_comparison, {"variants": [{"name": "jit"}]})
    assert "speed-up" in _shown(show_comparison, {})


def test_a_comparison_is_kept_as_strict_json_and_a_chart(tmp_path):
    pytest.importorskip("matplotlib")
    broken = {**COMPARISON, "tolerance": math.inf}
    path = write_comparison(tmp_path / "new" / "folder", broken)
    assert path == tmp_path / "new" / "folder" / "compare.json"
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [variant["name"] for variant in read["variants"]] == ["eager", "jit", "scan"]
    assert read["variants"][1]["median_seconds"] == 4.99e-4
    assert read["tolerance"] == "Infinity"
    chart = ET.fromstring(path.with_suffix(".svg").read_text())
    texts = {element.text for element in chart.iter("{http://www.w3.org/2000/svg}text")}
    assert {"eager", "jit", "499 µs · 5.4 ×"} <= texts
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_comparison_in_which_nothing_ran_has_no_chart(tmp_path):
    write_comparison(tmp_path, {"variants": [VARIANTS[2]]})
    assert [path.name for path in tmp_path.iterdir()] == ["compare.json"]


def test_without_matplotlib_the_numbers_are_kept_and_one_line_says_why(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_comparison(tmp_path, COMPARISON)
    assert [path.name for path in tmp_path.iterdir()] == ["compare.json"]
    assert capsys.readouterr().err == (
        "the chart is skipped: matplotlib is not installed: "
        "pip install 'functorch_kit[experiments]' brings it\n"
    )


def test_a_summary_lists_the_parts_and_ends_with_the_whole():
    @dataclass(frozen=True)
    class Summary:
        rows: tuple[Row, ...]
        totals: dict[str, Row]

        def to_dict(self):
            return dataclasses.asdict(self)

    found = Summary(
        (Row("stem", "float32[2,8]", 1_312_000, 9), Row("", "float32[2,3]", 10, 2_000_000, True)),
        {"": Row("", "float32[2,3]", 1_312_010, 2_000_009, True)},
    )
    lines = _shown(show_summary, found).splitlines()
    assert [line.split() for line in (lines[0], *lines[1:3], lines[4])] == [
        ["part", "output", "parameters", "FLOPs"],
        ["stem", "float32[2,8]", "1,312,000", "9"],
        ["(model)", "(rest)", "float32[2,3]", "10", "2.00", "M"],
        ["total", "float32[2,3]", "1,312,010", "2.00", "M"],
    ]
    assert _shown(show_summary, dataclasses.asdict(found)) == _shown(show_summary, found)


def test_a_report_may_lack_what_a_backend_does_not_tell():
    text = _shown(show_programs, [{"name": "step", "peak_bytes": None, "flops": float("nan")}])
    assert all(cell == "-" for line in text.splitlines()[2:] for cell in line.split()[-1:])


def test_tables_on_a_terminal_are_drawn_by_rich(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    reader, writer = os.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        show_comparison(COMPARISON, stream=stream)
        stream.flush()
        text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "─" in text
    assert "499 µs" in text
