"""The script that compares modes, from the command line to what it leaves behind."""

import json
from pathlib import Path

import pytest

TINY = ["experiment=two_layer", "rounds=2", "seconds=1", "steps=2"]


@pytest.mark.smoke
def test_a_comparison_is_printed_and_written(script, tmp_path: Path):
    variants = "variants=[jit,scan=2+donate,accumulate=2+bf16+sharded=2]"
    ended = script("compare.py", *TINY, variants)
    assert ended.code == 0, ended.err
    assert "speed-up" in ended.out
    assert "scan=2+donate: first steps (2 of 3)" in ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("compare-gaussian-mlp-")
    assert ended.last_line == f"comparison: runs/{folder.name}/compare.html"
    written = json.loads((folder / "compare.json").read_text())
    rows = {row["name"]: row for row in written["variants"]}
    assert list(rows) == ["jit", "scan=2+donate", "accumulate=2+bf16+sharded=2"]
    assert [row["error"] for row in rows.values()] == [None] * 3
    assert rows["scan=2+donate"]["max_relative_difference"] < 1e-4
    assert rows["accumulate=2+bf16+sharded=2"]["compared_with"] == "2 micro-batches written out"
    assert written["environment"]["devices"] >= 2  # the script asked for them
    names = {path.name for path in folder.iterdir()}
    texts = {"train_step.jaxpr.txt", "train_step.hlo.txt", "layers.svg"}
    assert {"compare.html", "compare.svg", *texts} <= names
    page = (folder / "compare.html").read_text()
    assert "train_step.hlo.txt" in page
    assert page.count("<svg") == 2


def test_a_quiet_comparison_prints_its_last_line_alone(script, tmp_path: Path):
    ended = script("compare.py", *TINY, "variants=[jit]", "quiet=true", "run_dir=here")
    (folder,) = (tmp_path / "here").iterdir()
    assert ended.out == f"comparison: here/{folder.name}/compare.html\n", ended.err
    assert ended.err == ""
    assert (folder / "compare.json").is_file()


def test_a_contender_that_is_not_installed_is_a_row_that_says_so(script, tmp_path: Path):
    # Any interpreter without the peers will do; this one has no such module.
    ended = script("compare.py", "model=mlp", "variants=[jit]", "rounds=1", "steps=1", "pairs=1",
                   "contenders=[torch_eager]", "run_dir=a", "seconds=0")  # fmt: skip
    assert ended.code == 0, ended.err
    (written,) = (tmp_path / "a").glob("*/compare.json")
    (row,) = json.loads(written.read_text())["contenders"]
    assert row["peer"] == "torch_eager"
    assert row["ratio"] is None or row["ratio"] > 0
    assert "not installed" in row["note"] or row["ratio"] is not None
    assert "torch_eager" in ended.out
