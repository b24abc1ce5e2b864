"""A comparison on the console, and the files that it leaves behind."""

import io
import json
import math
import os
import re
import sys
import xml.etree.ElementTree as ET

import pytest

from functorch_kit.report import layer_graph, show_comparison, write_comparison, write_views

SVG = "{http://www.w3.org/2000/svg}"
EAGER = {
    "name": "eager", "compile_seconds": 0.0, "first_call_seconds": 0.5, "median_seconds": 2.7e-3,
    "low_seconds": 2.6e-3, "high_seconds": 2.9e-3, "speedup": 1.0, "dispatch_seconds": 2.6e-3,
    "matmul_share": 0.005, "max_relative_difference": 0.0, "compared_with": "eager",
    "compared_steps": 10,
}  # fmt: skip
JIT = {
    "name": "jit", "compile_seconds": 0.11, "first_call_seconds": 0.25, "median_seconds": 4.99e-4,
    "low_seconds": 4.9e-4, "high_seconds": 5.3e-4, "speedup": 5.4, "dispatch_seconds": 8e-6,
    "matmul_share": 0.028, "peak_bytes": 1_500_000, "max_relative_difference": 0.25, "red": True,
    "worst_leaf": "state/params/head", "leaf_difference": 0.25, "tolerance": 1e-5,
    "compared_with": "eager", "compared_steps": 10, "diverges_at": "blocks/0",
    "diverges_at_step": 1, "faults": ["state/params/head is 0.25 of its scale away"],
}  # fmt: skip
SCAN = {"name": "scan", "error": "no carry: name the argument\nthat the output replaces"}
COMPARISON = {
    "variants": [EAGER, JIT, SCAN], "flops": 1_400_000, "matmul_gflops": 101.3,
    "rounding": {"float32": 3e-6}, "environment": {"jax": "0.10.2"},
    "contenders": [
        {"peer": "keras", "ours": 90.0, "theirs": 180.0, "unit": "µs/step", "ratio": 0.5,
         "low": 0.4, "high": 0.6, "note": "fit"},
        {"peer": "equinox", "ratio": None, "note": "not installed in the peers' environment"},
    ],
}  # fmt: skip


def shown(comparison) -> str:
    stream = io.StringIO()
    show_comparison(comparison, stream=stream)
    return stream.getvalue()


def test_a_comparison_has_a_row_for_each_variant_in_80_columns():
    text = shown(COMPARISON)
    time, rest = ([line.split() for line in text.splitlines() if name in line] for name in
                  ("499 µs", "8.00 µs"))  # fmt: skip
    assert time == [["jit", "110", "ms", "250", "ms", "499", "µs", "490", "µs", "–", "530", "µs",
                     "5.40", "×"]]  # fmt: skip
    assert rest == [["jit", "8.00", "µs", "2.8", "%", "1.50", "MB", "2.5e-01", "RED"]]
    assert "1.40 M FLOPs per step; a matrix product reaches 101 GFLOP/s here" in text
    assert "scan failed: no carry: name the argument\n" in text
    assert "jit is red: state/params/head is 0.25 of its scale away" in text
    assert "jit first has another output in blocks/0, at step 1" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_other_frameworks_have_a_table_of_their_own():
    lines = shown(COMPARISON).splitlines()
    keras = ["keras", "90", "180", "µs/step", "0.500", "0.400", "–", "0.600"]
    assert keras in [line.split() for line in lines]
    assert any("equinox: not installed" in line for line in lines)
    assert "contender" not in shown({"variants": [EAGER]})


def test_a_difference_that_is_not_finite_is_shown():
    assert "inf" in shown({"variants": [{"name": "scan", "max_relative_difference": "inf"}]})


def test_a_comparison_that_knows_nothing_is_still_a_table():
    assert "speed-up" in shown({"variants": [{"name": "jit"}]})
    assert "speed-up" in shown({})


def test_a_comparison_is_kept_as_strict_json_a_chart_and_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    path = write_comparison(tmp_path / "new" / "folder", {**COMPARISON, "tolerance": math.inf})
    assert path == tmp_path / "new" / "folder" / "compare.html"
    text = path.with_suffix(".json").read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [variant["name"] for variant in read["variants"]] == ["eager", "jit", "scan"]
    assert read["variants"][1]["median_seconds"] == 4.99e-4
    assert read["tolerance"] == "Infinity"
    chart = ET.fromstring(path.with_suffix(".svg").read_text())
    texts = {element.text for element in chart.iter(f"{SVG}text")}
    assert {"eager", "jit", "499 µs · 5.4 ×"} <= texts
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_page_names_the_red_rows_and_loads_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    row = {"path": "head", "output": "float32[4,10]", "params": 90, "flops": 720}
    write_views(
        tmp_path, name="step", jaxpr="{ lambda ; }", hlo="HloModule", summary={"rows": [row]}
    )
    page = write_comparison(tmp_path, COMPARISON).read_text()
    assert "red: jit, scan" in page
    for said in ("blocks/0 (step 1)", "state/params/head", "1.0e-05", "3.0e-06 to float32",
                 "step.hlo.txt", "float32[4,10]", "0.500"):  # fmt: skip
        assert said in page, said
    assert page.count("<svg") == 2
    assert not re.findall(r'(?:src|href)="(?!#|step\.)', page)
    assert "<script" not in page


def test_the_page_says_when_all_agree_and_shows_names_as_text(tmp_path):
    page = write_comparison(tmp_path, {"variants": [EAGER, {**EAGER, "name": "<b>"}]}).read_text()
    assert "all 2 agree" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.split("</style>")[1].split("<svg")[0]


def test_a_comparison_in_which_nothing_ran_has_no_chart(tmp_path):
    write_comparison(tmp_path, {"variants": [SCAN]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.html", "compare.json"]


def test_without_matplotlib_the_numbers_are_kept_and_one_line_says_why(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_comparison(tmp_path, COMPARISON)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.html", "compare.json"]
    assert capsys.readouterr().err == (
        "the chart is skipped: matplotlib is not installed: "
        "pip install 'functorch_kit[experiments]' brings it\n"
    )


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


# The graph of layers ------------------------------------------------------------------------------


def row(path: str, flops: int = 100, **changes) -> dict:
    return {"path": path, "output": "float32[2]", "params": 5, "flops": flops, **changes}


def drawn(*rows: dict) -> tuple[list[str], list[tuple[float, float, float, float]]]:
    """Texts, and boxes as (left, top, right, bottom), of a drawing that is well-formed XML."""
    root = ET.fromstring(layer_graph({"rows": list(rows)}))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        if rect.get("fill") == "none":
            x, y, w, h = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            boxes.append((x, y, x + w, y + h))
    return texts, boxes


def test_layers_are_drawn_one_below_the_other_inside_what_they_are_part_of():
    texts, (stem, frame, first, second) = drawn(row("stem"), row("body/one"), row("body/two"))
    assert [text for text in texts if "·" not in text and "[" not in text] == [
        "stem", "body", "one", "two",
    ]  # fmt: skip
    assert stem[3] < frame[1]
    assert first[3] < second[1]
    for inner in (first, second):
        assert frame[0] < inner[0]
        assert frame[1] < inner[1]
        assert inner[2] < frame[2]
        assert inner[3] < frame[3]


def test_equal_blocks_in_a_row_are_drawn_once_with_their_number():
    alike = [row(f"blocks/{number}/mlp") for number in range(3)]
    texts, boxes = drawn(*alike, row("blocks/3/mlp", params=6))
    assert texts.count("mlp") == 2
    assert "0 … 2  × 3" in texts
    assert len(boxes) == 5  # blocks, the three as one, its layer, the other, its layer


def test_what_is_in_no_part_of_a_part_has_a_box_of_its_own():
    texts, _ = drawn(row("attention/query"), row("attention", own=True))
    assert texts.index("query") < texts.index("(rest)")


def test_a_longer_bar_is_a_layer_with_more_operations():
    root = ET.fromstring(layer_graph({"rows": [row("a", 100), row("b", 400)]}))
    bars = [float(r.attrib["width"]) for r in root.iter(f"{SVG}rect") if r.get("fill") != "none"]
    assert bars[1] == pytest.approx(4 * bars[0], rel=0.01)


def test_a_layers_name_cannot_break_the_drawing():
    texts, _ = drawn(row('<a href="x">&'))
    assert '<a href="x">&' in texts


def test_a_model_without_names_is_one_box():
    texts, boxes = drawn(row(""))
    assert texts[0] == "model"
    assert len(boxes) == 1
