"""TensorBoard events: the same numbers, and no failure where tensorboardX is missing."""

import math
import struct
import sys

import pytest

from functorch_kit.report import TensorBoardLog

pytest.importorskip("tensorboardX")


def _events(folder):
    from tensorboardX.proto import event_pb2

    parse = event_pb2.Event.FromString  # pyright: ignore[reportAttributeAccessIssue]
    events = []
    for file in sorted(folder.glob("events.*")):
        data, start = file.read_bytes(), 0
        while start < len(data):
            (length,) = struct.unpack("<Q", data[start : start + 8])
            events.append(parse(data[start + 12 : start + 12 + length]))
            start += 16 + length
    return events


def _scalars(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for event in _events(folder)
        for value in event.summary.value
    ]


def test_each_metric_is_a_chart_and_each_split_a_line(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        log.write({"step": 20, "split": "train", "loss": 0.5, "accuracy": 0.75, "note": "warm"})
        log.write({"step": 20, "split": "validation", "loss": 0.25})
        log.flush()
        log.flush()
    assert _scalars(tmp_path) == [
        ("loss/train", 20, 0.5), ("accuracy/train", 20, 0.75), ("loss/validation", 20, 0.25),
    ]  # fmt: skip
    log.close()


def test_a_value_that_is_not_finite_has_no_point(tmp_path, caplog):
    with TensorBoardLog(tmp_path) as log:
        log.write({"step": 1, "split": "train", "loss": math.nan, "norm": math.inf, "lr": 0.5})
    assert _scalars(tmp_path) == [("lr/train", 1, 0.5)]
    assert not caplog.records


def test_a_resumed_run_purges_the_steps_that_it_repeats(tmp_path):
    with TensorBoardLog(tmp_path, purge_step=21) as log:
        log.write({"step": 21, "split": "train", "loss": 0.5})
    starts = [event.step for event in _events(tmp_path) if event.HasField("session_log")]
    assert starts == [21]


def test_without_tensorboardx_one_line_says_what_brings_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with TensorBoardLog(tmp_path / "events") as log:
        log.write({"step": 1, "split": "train", "loss": 0.5})
        log.flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "pip install 'functorch_kit[experiments]'" in err
    assert not (tmp_path / "events").exists()
