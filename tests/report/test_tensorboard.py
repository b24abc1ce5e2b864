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
        assert len(_scalars(tmp_path)) == 3  # a flush leaves nothing behind
    assert _scalars(tmp_path) == [
        ("loss/train", 20, 0.5), ("accuracy/train", 20, 0.75), ("loss/validation", 20, 0.25),
    ]  # fmt: skip
    log.close()


def test_the_events_are_records_as_tensorflow_reads_them(tmp_path):
    with TensorBoardLog(tmp_path) as log:
        log.write({"step": 7, "split": "train", "loss": 0.5})
    [file] = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    data, start, count = file.read_bytes(), 0, 0
    while start < len(data):
        (length,) = struct.unpack("<Q", data[start : start + 8])
        end = start + 12 + length
        for content, check in ((data[start : start + 8], data[start + 8 : start + 12]),
                               (data[start + 12 : end], data[end : end + 4])):  # fmt: skip
            assert struct.unpack("<I", check) == (_masked(_crc32c(content)),)
        start, count = end + 4, count + 1
    assert count == 2
    assert _events(tmp_path)[0].file_version == "brain.Event:2"
    assert _crc32c(b"123456789") == 0xE3069283  # the value that every implementation has to give


def _crc32c(content):
    """Castagnoli's checksum bit by bit (RFC 3720, appendix B.4)."""
    found = 0xFFFFFFFF
    for byte in content:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def _masked(check):
    return ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_two_logs_of_one_moment_have_a_file_each(tmp_path):
    for step in (1, 2):
        with TensorBoardLog(tmp_path) as log:
            log.write({"step": step, "split": "train", "loss": 0.5})
    assert [step for _, step, _ in _scalars(tmp_path)] == [1, 2]


def test_a_long_time_without_a_checkpoint_does_not_hide_the_rows(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with TensorBoardLog(tmp_path) as log:
        log.write({"step": 1, "split": "train", "loss": 0.5})
        assert not _scalars(tmp_path)
        now[0] += 11
        log.write({"step": 2, "split": "train", "loss": 0.5})
        assert len(_scalars(tmp_path)) == 2


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
