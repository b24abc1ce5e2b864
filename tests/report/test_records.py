"""metrics.jsonl: exact, strict, each row once and in order, whatever killed the run before."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_kit.errors import UserError
from functorch_kit.report import MetricsLog, RecordError, read_metrics


def _row(step, split="train", **metrics):
    return {"step": step, "split": split, **(metrics or {"loss": 0.5})}


def _refuse_constants(name):
    raise AssertionError(f"{name} is no strict JSON")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@given(st.lists(st.floats(width=64), max_size=8), st.lists(st.floats(width=32), max_size=8))
def test_every_float_parses_back_to_the_same_bits(tmp_path_factory, doubles, singles):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    values = [*doubles, *map(np.float32, singles)]
    with MetricsLog(path) as log:
        for step, value in enumerate(values):
            log.write(_row(step, loss=value))
    expected = [float(value) for value in values]
    read = [row["loss"] for row in read_metrics(path)]
    assert np.array_equal(
        np.asarray(read, np.float64).view(np.uint64)[~np.isnan(read)],
        np.asarray(expected, np.float64).view(np.uint64)[~np.isnan(expected)],
    )
    assert [math.isnan(value) for value in read] == [math.isnan(value) for value in expected]


def test_what_is_not_finite_is_strict_json_and_comes_back_as_a_float(path):
    with MetricsLog(path) as log:
        log.write(_row(1, a=math.nan, b=math.inf, c=-math.inf, d=np.float32(np.nan)))
    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=_refuse_constants) == {
        "step": 1, "split": "train", "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "NaN",
    }  # fmt: skip
    (row,) = read_metrics(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_array_scalars_are_written_as_numbers(path):
    with MetricsLog(path) as log:
        log.write(
            {
                "step": np.int64(3),
                "split": "train",
                "loss": jnp.float32(0.5),
                "per_class": np.ones(2),
            }
        )
        log.write(_row(4, loss=jnp.bfloat16(0.25)))
    assert read_metrics(path) == [
        {"step": 3, "split": "train", "loss": 0.5, "per_class": [1.0, 1.0]},
        {"step": 4, "split": "train", "loss": 0.25},
    ]


def test_a_value_that_is_no_plain_data_is_refused_by_name(path):
    with MetricsLog(path) as log, pytest.raises(RecordError, match="loss is of type object: give"):
        log.write(_row(1, loss=object()))


def test_a_row_is_written_once(path):
    with MetricsLog(path) as log:
        log.write(_row(20))
        log.write(_row(20, "validation"))
        with pytest.raises(RecordError, match=r"step 20 \(train\) was written before"):
            log.write(_row(20))
    assert len(read_metrics(path)) == 2


def test_a_step_does_not_come_after_a_later_one(path):
    with MetricsLog(path) as log:
        log.write(_row(20))
        with pytest.raises(RecordError, match=r"step 19 \(validation\) comes after step 20"):
            log.write(_row(19, "validation"))


def test_a_refused_row_leaves_the_log_as_it_was(path):
    with MetricsLog(path) as log:
        log.write(_row(20))
        for bad in (_row(19), _row(20), {"split": "train"}, _row(21, loss=object())):
            with pytest.raises(RecordError):
                log.write(bad)
        log.write(_row(21))
    assert [row["step"] for row in read_metrics(path)] == [20, 21]


@pytest.mark.parametrize("step", [None, -1, 1.5, True, "3"])
def test_a_step_is_a_whole_number_from_zero(path, step):
    with MetricsLog(path) as log, pytest.raises(RecordError, match="a row's step is"):
        log.write({"step": step, "split": "train"})


def test_a_row_names_its_split(path):
    with MetricsLog(path) as log, pytest.raises(RecordError, match="the split of step 1 is None"):
        log.write({"step": 1, "loss": 0.5})


def test_errors_are_for_users_and_one_line_long(path):
    with MetricsLog(path) as log, pytest.raises(UserError) as caught:
        log.write({"step": 1})
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_rows_are_buffered_until_they_are_flushed(path):
    log = MetricsLog(path)
    log.write(_row(1))
    assert path.read_text() == ""
    log.flush()
    assert len(read_metrics(path)) == 1
    log.write(_row(2))
    log.flush(to_disk=True)
    assert len(read_metrics(path)) == 2
    log.close()
    log.close()


def test_a_large_buffer_is_written_without_being_asked(path):
    log = MetricsLog(path)
    for step in range(5000):
        log.write(_row(step))
    assert len(read_metrics(path)) > 4000
    log.close()


def test_a_closed_log_says_so(path):
    log = MetricsLog(path)
    log.close()
    with pytest.raises(RecordError, match=r"metrics\.jsonl is closed"):
        log.write(_row(1))


def test_a_new_log_replaces_an_old_one(path):
    for loss in (1.0, 2.0):
        with MetricsLog(path) as log:
            log.write(_row(1, loss=loss))
    assert read_metrics(path) == [_row(1, loss=2.0)]


def test_resuming_drops_later_rows_and_goes_on_to_the_same_bytes(path, tmp_path):
    rows = [_row(step, split, loss=1 / step) for step in range(1, 9) for split in ("train", "test")]
    whole = tmp_path / "whole.jsonl"
    with MetricsLog(whole) as log:
        for row in rows:
            log.write(row)
    for kept in range(9):
        path.write_bytes(whole.read_bytes())
        with MetricsLog(path, keep_through=kept) as log:
            log.flush()
            assert [row["step"] for row in read_metrics(path)][1::2] == list(range(1, kept + 1))
            for row in rows[2 * kept :]:
                log.write(row)
        assert path.read_bytes() == whole.read_bytes()


def test_resuming_without_a_file_starts_one(path):
    with MetricsLog(path, keep_through=7) as log:
        log.write(_row(8))
    assert read_metrics(path) == [_row(8)]


def test_rows_kept_from_before_still_count_as_written(path):
    with MetricsLog(path) as log:
        log.write(_row(20))
    with MetricsLog(path, keep_through=20) as log:
        with pytest.raises(RecordError, match="was written before"):
            log.write(_row(20))
        log.write(_row(20, "validation"))
    assert len(read_metrics(path)) == 2


@pytest.mark.parametrize("cut", range(1, len('{"step": 2, "split": "train", "loss": 0.5}\n')))
def test_a_last_line_torn_anywhere_is_dropped(path, cut):
    with MetricsLog(path) as log:
        log.write(_row(1))
        log.write(_row(2))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_metrics(path) == [_row(1)]
    with MetricsLog(path, keep_through=5) as log:
        log.write(_row(2))
    assert read_metrics(path) == [_row(1), _row(2)]


@pytest.mark.parametrize("tail", [b"\x00\x00\x00", b"\x00\x00\n", b"\xff\xfe\n", b"[1]\n", b"\n"])
def test_a_last_line_of_rubbish_is_dropped(path, tail):
    with MetricsLog(path) as log:
        log.write(_row(1))
    path.write_bytes(path.read_bytes() + tail)
    MetricsLog(path, keep_through=9).close()
    assert read_metrics(path) == [_row(1)]
    assert path.read_bytes().endswith(b"}\n")


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(path):
    with MetricsLog(path) as log:
        for step in range(3):
            log.write(_row(step))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-5], lines[2], ""]))
    for opened in (read_metrics, lambda path: MetricsLog(path, keep_through=9)):
        with pytest.raises(RecordError, match="line 2 is no row of metrics"):
            opened(path)


def test_a_record_out_of_order_is_not_gone_on_with(path):
    path.write_text("".join(json.dumps(_row(step)) + "\n" for step in (5, 3, 6)))
    with pytest.raises(RecordError, match="step 3"):
        MetricsLog(path, keep_through=9)


def test_the_folder_of_a_log_is_made(tmp_path):
    with MetricsLog(str(tmp_path / "runs" / "a" / "metrics.jsonl")) as log:
        assert isinstance(log.path, Path)


def test_names_beyond_ascii_survive(path):
    with MetricsLog(path) as log:
        log.write({**_row(1), "größe µ": 1.5, "note": "→"})
    assert read_metrics(path)[0]["größe µ"] == 1.5
