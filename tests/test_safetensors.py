"""Arrays in files: read as the library reads them, and nothing else is read at all."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit import safetensors
from functorch_kit.untrusted import FileError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "odd": np.array([1, 2, 3], np.uint8),
    "truth": np.array([[True], [False]]),
    "wide": RANDOM.normal(size=(2, 3)),
    "plain": RANDOM.normal(size=(3, 0, 2)).astype(np.float32),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
    "half": np.array(0.5, np.float16),
    "whole/number": np.array([-(2**62)], np.int64),
    "complex": np.array([1 + 2j], np.complex64),
}


def test_what_is_written_is_read_back(tmp_path: Path):
    safetensors.write(tmp_path / "a", ARRAYS, {"made": "here"})
    found = safetensors.read(tmp_path / "a")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_file_by_hand_is_read(tmp_path: Path):
    header = b'{"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\x01\x00\xff\xff"
    (tmp_path / "a").write_bytes(content)
    assert safetensors.read(tmp_path / "a")["a"].tolist() == [1, -1]


def test_the_library_reads_ours_and_we_read_the_librarys(tmp_path: Path):
    library = pytest.importorskip("safetensors.numpy")
    plain = {name: ARRAYS[name] for name in ("odd", "wide", "half", "whole/number", "truth")}
    safetensors.write(tmp_path / "ours", plain)
    theirs = library.load_file(tmp_path / "ours")
    library.save_file(plain, tmp_path / "theirs", metadata={"format": "np"})
    for found in (theirs, safetensors.read(tmp_path / "theirs")):
        assert set(found) == set(plain)
        for name, array in plain.items():
            np.testing.assert_array_equal(found[name], array)


def test_every_array_begins_where_its_numbers_may_lie(tmp_path: Path):
    content = np.frombuffer(safetensors.as_bytes(ARRAYS), np.uint8)
    places, _ = safetensors.layout(content, "it")
    for place in places.values():
        assert place.begin % place.dtype.itemsize == 0


def test_one_that_cannot_be_named_is_not_written(tmp_path: Path):
    with pytest.raises(FileError, match="array 'a' is object, for which safetensors has no name"):
        safetensors.write(tmp_path / "a", {"a": np.array([None])})
    assert not (tmp_path / "a").exists()


def _file(header: object, data: bytes = bytes(8)) -> np.ndarray:
    text = json.dumps(header).encode()
    return np.frombuffer(len(text).to_bytes(8, "little") + text + data, np.uint8)


def _entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "its header is no list of names"),
        ({"a": _entry(), "b": _entry()}, "'b' overlaps another array"),
        ({"a": _entry([1], [4, 8])}, "'a' leaves a gap before it"),
        ({"a": _entry([1], [0, 4])}, "its arrays take 4 bytes, and 8 are there"),
        ({"a": _entry([4], [0, 16])}, "its arrays take 16 bytes, and 8 are there"),
        ({"a": _entry([3])}, r"'a' is F32 \[3\], and its place has 8 bytes"),
        ({"a": _entry([2**62, 2**62])}, "'a' is larger than any file"),
        ({"a": _entry([2**40, 2**40, 0], [0, 0])}, "'a' is larger than any file"),
        ({"a": _entry([-2], [8, 0])}, "'a' has no shape"),
        ({"a": _entry([True, 2])}, "'a' has no shape"),
        ({"a": _entry([1] * 33)}, "'a' has no shape"),
        ({"a": _entry(offsets=[-8, 0])}, "'a' has no place"),
        ({"a": _entry(offsets=[0, 8, 8])}, "'a' has no place"),
        ({"a": _entry(dtype="O")}, "'a' has no dtype of plain numbers"),
        ({"a": _entry(dtype=["F32"])}, "'a' has no dtype of plain numbers"),
        ({"a": {**_entry(), "code": "x"}}, "'a' is not said by dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}}, "__metadata__ is no list of texts"),
    ],
)
def test_what_the_header_must_not_say_is_refused_by_name(header, message):
    with pytest.raises(FileError, match=message):
        safetensors.layout(_file(header), "it")


def test_truth_is_zero_or_one(tmp_path: Path):
    content = _file({"a": _entry([8], [0, 8], "BOOL")}, b"\0\1\0\1\0\1\0\2")
    (tmp_path / "a").write_bytes(content.tobytes())
    with pytest.raises(FileError, match="truth values that are neither 0 nor 1"):
        safetensors.read(tmp_path / "a")


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line_or_cover_the_file(content: bytes):
    try:
        places, _ = safetensors.layout(np.frombuffer(content, np.uint8), "it")
    except FileError as error:
        said = str(error)
    else:
        assert sum(place.end - place.begin for place in places.values()) <= len(content)
        said = "it is read"
    assert said.isprintable()
