from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import DataError

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.arange(40) % 4


def _changed(values: Any, record: int, value: Any) -> np.ndarray:
    changed = np.array(values)
    changed[record] = value
    return changed


def _ints(*values: int, dtype: Any = np.int64) -> np.ndarray:
    return np.array([*values] * 10, dtype)


NOT_FINITE = "a value that is not finite in float32 in record"
REFUSED = {
    "lengths": (X, Y[:-1], "x has 40 records and y has 39"),
    "no records": (X[:0], Y[:0], "x has no records"),
    "not a number": (_changed(X, 7, np.nan), Y, f"x has {NOT_FINITE} 7"),
    "infinite": (X, _changed(X, 39, -np.inf), f"y has {NOT_FINITE} 39"),
    "infinite as float32": (_changed(X, 5, 1e300), Y, "not finite in float32 in record 5"),
    "objects": (np.array([{}, []] * 20, object), Y, "x is object of shape (40,): give numbers"),
    "strings": (X, np.array(["a", "b"] * 20), "y is <U1 of shape (40,): give numbers"),
    "one number": (3.0, Y, "x is float64 of shape (): give numbers"),
    "truth values": (X, Y > 2, "y is bool of shape (40,): give numbers"),
    "ragged": ([[1, 2], [3]], [0, 1], "x is no array: its records differ in shape"),
    "negative class": (X, _changed(Y, 11, -1), "record 11 has class -1: classes count from 0"),
    "enormous class": (X, _changed(Y, 12, 2_000_000_000), "record 12 has class 2000000000"),
    "beyond int32": (_ints(1, 2, 3, 2**31), Y, "x has a number beyond int32 in record 3"),
    "below int32": (_ints(1, 2, -(2**31) - 1, 0), Y, "x has a number beyond int32 in record 2"),
    "beyond uint32": (_ints(1, 2**32, 0, 0, dtype=np.uint64), Y, "beyond uint32 in record 1"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "y", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_data_is_refused_in_one_line_that_names_it(x, y, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        data.arrays(x, y, batch_size=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fractions", [{"validation": 0.9, "test": 0.2}, {"test": -0.1}])
def test_fractions_that_leave_nothing_are_refused(fractions):
    with pytest.raises(DataError, match="fractions that leave some to train on"):
        data.arrays(X, Y, batch_size=2, **fractions)


def test_the_dtypes_are_those_that_jax_computes_in():
    batch = data.arrays(X, Y, batch_size=4).train(0)
    assert (batch["x"].dtype, batch["y"].dtype) == (np.float32, np.int32)
    narrow = data.arrays(X.astype(np.float16), Y.astype(np.uint8), batch_size=4).train(0)
    assert (narrow["x"].dtype, narrow["y"].dtype) == (np.float16, np.uint8)


def test_dtypes_of_64_bits_stay_where_jax_computes_in_them(x64):
    batch = data.arrays(X, Y, batch_size=4).train(0)
    assert (batch["x"].dtype, batch["y"].dtype) == (np.float64, np.int64)


def test_the_three_parts_hold_every_record_once():
    parts = data.arrays(np.arange(40.0), Y, batch_size=4, validation=0.2, test=0.3)
    held = [part.arrays["x"] for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in held] == [20, 8, 12]
    assert sorted(np.concatenate(held).tolist()) == list(range(40))


def test_integer_targets_are_classes_and_real_ones_are_not():
    assert data.arrays(X, Y, batch_size=4).class_names == ("0", "1", "2", "3")
    assert data.arrays(X, Y * 1.0, batch_size=4).class_names == ()


def test_parts_of_no_records_are_none():
    parts = data.arrays(X, Y, batch_size=4, validation=0.0, test=0.0)
    assert (parts.validation, parts.test) == (None, None)
    assert parts.train.order.count == 40


def test_the_seed_of_the_order_does_not_move_the_split():
    one, other = (data.arrays(X, Y, batch_size=4, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.test.arrays["x"], other.test.arrays["x"])
    assert (one.train(0)["x"] != other.train(0)["x"]).any()


def test_what_was_given_is_not_written_to_and_not_shared():
    x = X.astype(np.float32)
    parts = data.arrays(x, Y, batch_size=4, validation=0.0, test=0.0)
    before = parts.train(0)["x"]
    x[:] = 0
    np.testing.assert_array_equal(parts.train(0)["x"], before)


def test_an_npz_file_is_the_arrays_in_it(tmp_path: Path):
    path = tmp_path / "points.npz"
    np.savez_compressed(path, x=X, y=Y, other=np.zeros(2))
    parts = data.npz(path, batch_size=4, test=0.5)
    expected = data.arrays(X, Y, batch_size=4, test=0.5)
    np.testing.assert_array_equal(parts.train(3)["x"], expected.train(3)["x"])
    assert parts.name == "points"


def _write(path: Path, kind: str) -> None:
    match kind:
        case "text":
            path.write_text("x,y\n1,2\n")
        case "empty":
            path.write_bytes(b"")
        case "npy":
            with path.open("wb") as file:
                np.save(file, X)
        case "pickle":
            np.savez(path, x=np.array([{}], object), y=np.zeros(1))
        case "no y":
            np.savez(path, x=X, labels=Y)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist: give data.path="),
        ("text", "is not an .npz file of plain arrays"),
        ("empty", "is not an .npz file of plain arrays"),
        ("npy", "is not an .npz file of plain arrays"),
        ("pickle", "is not an .npz file of plain arrays"),
        ("no y", "lacks y (it holds x, labels): save it with numpy.savez"),
    ],
)
def test_a_file_that_is_no_data_is_refused_in_one_line_that_names_it(kind, message, tmp_path: Path):
    path = tmp_path / "data.npz"
    _write(path, kind)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        data.npz(path, batch_size=4)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_a_damaged_file_is_refused_or_read_but_never_a_traceback(save, tmp_path: Path):
    path = tmp_path / "data.npz"
    save(path, x=X, y=Y)
    whole, dice = path.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 2, 8])):
            damaged[dice.randrange(len(whole))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.choice([len(whole), dice.randrange(len(whole))])])
        try:
            data.npz(path, batch_size=4)
        except DataError:
            refused += 1
    assert refused > 100
