"""A profile is shown as two tables that add up, and written for people and programs."""

import io
import json

from functorch_kit import report

ROW = {"forward": 0.003, "backward": 0.0, "outside": 0.0, "seconds": 0.003, "share": 0.75}
PROFILE = {
    "by_layer": [{"path": "blocks/0", **ROW}, {"path": "", **ROW}],
    "by_kind": [{"kind": "matrix product", **ROW}],
    "steps": 5,
    "step_seconds": 0.004,
    "plain_seconds": 0.0035,
    "explained_seconds": 0.003,
    "host_seconds": 0.0006,
    "unexplained_seconds": 0.0004,
    "parallelism": 1.5,
    "trace_file": "runs/a/vm.trace.json.gz",
    "notes": ["note: something"],
}


def test_the_tables_name_layers_kinds_and_the_unexplained_rest():
    stream = io.StringIO()
    report.show_profile(PROFILE, stream=stream)
    text = stream.getvalue()
    for part in ("blocks/0", "(outside any layer)", "matrix product", "75.0 %",
                 "400 µs unexplained", "= 4.00 ms a step", "3.50 ms a step without it",
                 "runs/a/vm.trace.json.gz", "note: something"):  # fmt: skip
        assert part in text


def test_a_profile_is_written_as_json_and_as_text(tmp_path):
    path = report.write_profile(tmp_path / "new", PROFILE)
    assert json.loads(path.read_text())["step_seconds"] == 0.004
    assert "blocks/0" in (tmp_path / "new" / "profile.txt").read_text(encoding="utf-8")
