"""The roofline is drawn and told: the ceilings, the program under them, what bounds it."""

import io
import json

import pytest

from functorch_kit import report

ROOFLINE = {
    "name": "train_step",
    "flops": 8_000_000,
    "bytes": 4_000_000,
    "seconds": 0.001,
    "intensity": 2.0,
    "ridge": 5.0,
    "bound": "memory",
    "of_attainable": 0.2,
    "measured": {"matmul_flops": 100e9, "copy_bytes": 20e9, "peak_flops": 150e9},
    "utilization": {"flops_per_second": 8e9, "of_matmul": 0.08, "of_peak": None},
    "warnings": ["something is off"],
}


@pytest.fixture(autouse=True)
def _matplotlib():
    pytest.importorskip("matplotlib")


def test_the_chart_names_both_roofs_the_vendors_figure_and_the_program(tmp_path):
    chart = report.roofline_chart(ROOFLINE, png=tmp_path / "a.png")
    for text in ("matrix product 100 GFLOP/s", "copy 20.0 GB/s", "vendor's figure 150 GFLOP/s",
                 "train_step 8.00 GFLOP/s"):  # fmt: skip
        assert text in chart
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_several_programs_stand_in_one_chart():
    chart = report.roofline_chart([ROOFLINE, {**ROOFLINE, "name": "eval_step", "intensity": 9.0}])
    assert "train_step" in chart
    assert "eval_step" in chart


def test_equal_data_gives_an_equal_chart():
    assert report.roofline_chart(ROOFLINE) == report.roofline_chart(ROOFLINE)


def test_the_table_says_what_bounds_the_program_and_what_is_wrong():
    stream = io.StringIO()
    report.show_roofline(ROOFLINE, stream=stream)
    text = stream.getvalue()
    for part in ("memory", "20.0 %", "8.0 %", "warning: something is off"):
        assert part in text


def test_the_roofline_is_written_as_json_and_pictures(tmp_path):
    path = report.write_roofline(tmp_path, ROOFLINE)
    assert json.loads(path.read_text())["bound"] == "memory"
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".svg", ".png"}
