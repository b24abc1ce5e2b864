"""Records come from files as the artifact takes them, or are refused by number."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from functorch_kit.data import Characters, Inputs
from functorch_kit.errors import UserError
from functorch_kit.export import read_records, text_record

TABLE = Inputs("table", (2,), "float32", columns=("b", "a"))
ARRAY = Inputs("array", (2,), "float32")
BYTES = Inputs("image", (2, 2, 3), "uint8")
TEXT = Inputs("text", (3,), "int32")
LETTERS = Characters("abc")


def _write(folder: Path, name: str, content: str | bytes | np.ndarray) -> Path:
    path = folder / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _refused(path: Path, inputs: Inputs, letters: Characters | None = None) -> str:
    with pytest.raises(UserError) as caught:
        list(read_records(path, inputs, letters))
    return str(caught.value)


def test_columns_are_found_by_name_and_others_passed_over(tmp_path: Path):
    path = _write(tmp_path, "t.csv", '\ufeffa,"kind, or so",b\n1,x,2\n\n3e1,"y",-4\n')
    found = list(read_records(path, TABLE))
    assert [record.name for record in found] == ["1", "2"]
    assert [record.x.tolist() for record in found] == [[2, 1], [-4, 30]]
    assert found[0].x.dtype == np.float32
    tabs = _write(tmp_path, "t.tsv", "b\ta\n2\t1\n")
    assert next(read_records(tabs, TABLE)).x.tolist() == [2, 1]
    unnamed = _write(tmp_path, "u.csv", "first,second\n5,6\n")
    assert next(read_records(unnamed, ARRAY)).x.tolist() == [5, 6]


def test_an_array_is_records_first_in_a_dtype_that_loses_nothing(tmp_path: Path):
    wide = _write(tmp_path, "x.npy", np.array([[1.5, 2], [3, 4]]))
    assert [record.x.tolist() for record in read_records(wide, ARRAY)] == [[1.5, 2], [3, 4]]
    tokens = _write(tmp_path, "t.npy", np.array([[0, 1, 2]]))
    (record,) = read_records(tokens, TEXT, LETTERS)
    assert (record.x.tolist(), record.x.dtype, record.last) == ([0, 1, 2], np.int32, 2)


def test_an_image_is_brought_to_size_and_a_folder_is_sorted(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, 2:4] = 200  # the middle, as high as it is wide
    for name in ("b.png", "a.bmp"):
        image.fromarray(pixels).save(tmp_path / name)
    found = list(read_records(tmp_path, BYTES))
    assert [record.name for record in found] == ["a.bmp", "b.png"]
    assert (found[0].x == 200).all()
    grey = Inputs("image", (2, 2, 1), "float32")
    (record,) = read_records(tmp_path / "b.png", grey)
    np.testing.assert_allclose(record.x, np.full((2, 2, 1), 200 / 255), rtol=1e-6)


def test_a_text_is_its_last_tokens_and_padding_after_them(tmp_path: Path):
    path = _write(tmp_path, "t.txt", "ab\r\n\nabcab\n")
    found = list(read_records(path, TEXT, LETTERS))
    assert [(record.name, record.x.tolist(), record.last) for record in found] == [
        ("1", [0, 1, 0], 1), ("3", [2, 0, 1], 2),
    ]  # fmt: skip
    assert text_record("1", "c", TEXT, LETTERS).x.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "inputs", "message"),
    [
        ("t.csv", "a,c\n1,2\n", TABLE, "lacks column 'b': its first line names the 2"),
        ("t.csv", "a,b\n1\n", TABLE, "record 1: 1 cells, and 2 columns"),
        ("t.csv", "a,b\n1,2\n1,x\n", TABLE, "record 2: could not convert string to float: 'x'"),
        ("t.csv", "a,b\n1,nan\n", TABLE, "record 1: a number is not finite in float32"),
        ("t.csv", "a,b\n1,1e39\n", TABLE, "record 1: a number is not finite in float32"),
        ("t.csv", "a,b\n1," + "1" * 101, TABLE, "a cell has more than 100 characters"),
        ("t.csv", 'a,b\n"1\n2",2\n', TABLE, "cannot be read"),
        ("t.csv", "a," * 600_000, TABLE, "line 1 of input .* is longer than 1048576 characters"),
        ("t.csv", b"a,b\n\xff\n", TABLE, "is not UTF-8"),
        ("t.csv", "a,b,c\n1,2,3\n", ARRAY, "has 3 columns: its first line names the 2"),
        ("t.csv", "a,b\n1,2\n", BYTES, "is a table, and the artifact takes records of kind image"),
        ("x.npy", np.zeros((2, 3)), ARRAY, r"has shape \(2, 3\), and records of \(2,\) are wanted"),
        ("x.npy", np.zeros((0, 2)), ARRAY, r"has shape \(0, 2\)"),
        ("x.npy", np.zeros((1, 2), int), ARRAY, "is int64, and the artifact takes float32"),
        ("x.npy", np.zeros((1, 2, 2, 3)), BYTES, "is float64, and the artifact takes uint8"),
        ("x.npy", np.full((2, 2), 1e39), ARRAY, "record 0: a number is not finite in float32"),
        ("x.npy", np.array([[0, 1, 3]]), TEXT, "record 0: a number is outside 0 to 2"),
        ("x.npy", np.array([[0, 1, -1]]), TEXT, "record 0: a number is outside 0 to 2"),
        ("x.npy", np.array([[None, 1]]), ARRAY, "holds object, not numbers"),
        ("x.png", b"", ARRAY, "is an image, and the artifact takes records of kind array"),
        ("x.png", b"%!PS-Adobe", BYTES, "cannot be decoded"),
        ("t.txt", "abx\n", TEXT, "character 'x' is not in the vocabulary"),
        ("t.pkl", b"", TABLE, "is none of .npy, .csv, .tsv, .txt or an image"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, name, content, inputs, message):
    import re

    path = _write(tmp_path, name, content)
    said = _refused(path, inputs, LETTERS if inputs is TEXT else None)
    assert re.search(message, said), said
    assert said.isprintable()


def test_text_for_a_model_of_something_else_is_refused(tmp_path: Path):
    assert "and no text" in _refused(_write(tmp_path, "t.txt", "a\n"), TABLE)
    with pytest.raises(UserError, match="has no tokens: give some to go on with"):
        text_record("1", "", TEXT, LETTERS)
    assert "does not exist" in _refused(tmp_path / "nothing.npy", TABLE)


def test_a_folder_without_images_or_with_a_way_out_is_refused(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "in"
    folder.mkdir()
    assert "holds no images" in _refused(folder, BYTES)
    image.new("RGB", (2, 2)).save(tmp_path / "out.png")
    os.symlink(tmp_path / "out.png", folder / "a.png")
    assert "leads out of its folder" in _refused(folder, BYTES)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has 81 pixels, and 80 are decoded at most"):
        list(read_records(tmp_path / "a.png", BYTES, most_pixels=80))
