"""Files of known bytes read back right; cut, mislabelled and damaged ones refused with a reason."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import DataError

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (30, 5, 4), dtype=np.uint8)
Y = (np.arange(30) % 3).astype(np.uint8)


def idx_bytes(array: np.ndarray, code: int = 8, counts: tuple[int, ...] | None = None) -> bytes:
    """By the format's description: two zeros, a type, the number of axes, sizes, numbers."""
    counts = array.shape if counts is None else counts
    head = bytes([0, 0, code, len(counts)]) + b"".join(struct.pack(">I", n) for n in counts)
    return head + array.tobytes()


def write_mnist(folder: Path, *, test: bool = True, packed: bool = False, x: Any = X, y: Any = Y):
    for part in ("train", "t10k") if test else ("train",):
        for name, array in (("images-idx3", x), ("labels-idx1", y)):
            content = idx_bytes(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_mnist_is_read_back_as_it_was_written(tmp_path: Path, packed: bool):
    found = data.idx_folder(write_mnist(tmp_path, packed=packed))
    assert set(found) == {"train", "test"}
    for part in found.values():
        np.testing.assert_array_equal(part["x"][..., 0], X)
        np.testing.assert_array_equal(part["y"], Y)


@pytest.mark.parametrize(
    ("code", "dtype"), [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_every_type_of_the_format_is_read(tmp_path: Path, code: int, dtype: str):
    values = np.array([[-3, 100], [7, -1]]).astype(dtype)
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(values, code))
    found = data.read_idx(path)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")


def test_an_idx_set_has_its_own_test_part_and_a_share_of_the_rest_validates(tmp_path: Path):
    parts = data.idx(write_mnist(tmp_path), batch_size=4, validation=0.2)
    assert [p.order.count for p in (parts.train, parts.validation, parts.test)] == [24, 6, 30]
    seen = parts.test(0)
    mean, std = X.mean() / 255, (X / 255).std()
    expected = (X[..., None] / 255 - mean) / std
    np.testing.assert_allclose(seen["x"][:30], expected, atol=1e-5)
    np.testing.assert_array_equal(seen["y"][:30], Y)
    assert parts.class_names == ("0", "1", "2")


def test_with_one_pair_of_files_a_test_part_is_split_off(tmp_path: Path):
    folder = write_mnist(tmp_path, test=False)
    parts = data.idx(folder, batch_size=4, validation=0.1, test=0.3)
    assert [p.order.count for p in (parts.train, parts.validation, parts.test)] == [18, 3, 9]


BAD_IDX = {
    "magic": (b"\x89PNG\r\n\x1a\n" + bytes(40), "has the wrong magic '89504e47'"),
    "empty": (b"", "has the wrong magic ''"),
    "unknown type": (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "has the wrong magic '00000701'"),
    "header": (bytes([0, 0, 8, 3, 0, 0]), "is cut short in its header"),
    "cut": (idx_bytes(X)[:-7], "is cut short: its header says 30 records, 600 bytes, and there"
            " are 593 (29 whole records)"),
    "too long": (idx_bytes(X) + b"\0", "is too long: its header says 30 records"),
    "count": (idx_bytes(X, counts=(31, 5, 4)), "is cut short: its header says 31 records"),
    "enormous": (idx_bytes(X, counts=(2**32 - 1,) * 3), "is cut short"),
    "gz cut": (gzip.compress(idx_bytes(X))[:-20], "is a damaged gzip file"),
    "gz damaged": (gzip.compress(idx_bytes(X))[:40] + bytes(60), "is a damaged gzip file"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_damaged_idx_file_is_refused_with_its_reason(tmp_path: Path, content: Any, message: str):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        data.idx(tmp_path, batch_size=4)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", Y[:-1], "hold 30 images and 29 labels"),
        ("train-images-idx3-ubyte", X[0], "have 2 and 1 axes"),
        ("train-labels-idx1-ubyte", None, "has no labels of the train part"),
    ],
)
def test_images_and_labels_that_do_not_match_are_refused(tmp_path: Path, name, array, message):
    path = write_mnist(tmp_path) / name
    path.unlink() if array is None else path.write_bytes(idx_bytes(array))
    with pytest.raises(DataError, match=message):
        data.idx(tmp_path, batch_size=4)


def test_two_data_sets_in_one_folder_are_not_mixed_up(tmp_path: Path):
    """EMNIST names its files so; of one file, packed and unpacked, either will do."""
    for split, values in (("letters-train", X), ("letters-test", X[:9])):
        (tmp_path / f"emnist-{split}-images-idx3-ubyte").write_bytes(idx_bytes(values))
        labels = gzip.compress(idx_bytes(Y[: len(values)]))
        (tmp_path / f"emnist-{split}-labels-idx1-ubyte.gz").write_bytes(labels)
    (tmp_path / "emnist-letters-train-labels-idx1-ubyte").write_bytes(idx_bytes(Y))
    found = data.idx_folder(tmp_path)
    assert {part: len(arrays["x"]) for part, arrays in found.items()} == {"train": 30, "test": 9}
    (tmp_path / "emnist-digits-train-images-idx3-ubyte").write_bytes(idx_bytes(X))
    with pytest.raises(DataError, match="keep the files of one data set in it"):
        data.idx_folder(tmp_path)


def test_a_folder_without_idx_files_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="holds no pair of IDX files"):
        data.idx(tmp_path, batch_size=4)


def write_cifar(folder: Path, kind: str = "10", count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Records as the format's page has them: label bytes, then 1024 each of red, green, blue."""
    x = RANDOM.integers(0, 256, (3 * count, 32, 32, 3), dtype=np.uint8)
    y = RANDOM.integers(0, 10, 3 * count).astype(np.uint8)
    records = [
        bytes([label] if kind == "10" else [19, label])
        + b"".join(image[..., channel].tobytes() for channel in range(3))
        for image, label in zip(x, y, strict=True)
    ]
    names = ["data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"]
    if kind == "100":
        names = ["train.bin", "test.bin"]
    for place, name in enumerate(names):
        (folder / name).write_bytes(b"".join(records[place * count : (place + 1) * count]))
    return x, y


@pytest.mark.parametrize(("kind", "classes"), [("10", 10), ("100", 100)])
def test_cifar_is_read_back_as_it_was_written(tmp_path: Path, kind: str, classes: int):
    x, y = write_cifar(tmp_path, kind)
    parts, names = data.cifar_folder(tmp_path)
    train = 14 if kind == "10" else 7
    np.testing.assert_array_equal(parts["train"]["x"], x[:train])
    np.testing.assert_array_equal(parts["train"]["y"], y[:train])
    np.testing.assert_array_equal(parts["test"]["x"], x[train : train + 7])
    assert len(names) == classes
    assert data.cifar(tmp_path, batch_size=2).train(0)["x"].dtype == np.float32


def test_cifars_class_names_come_from_its_own_file(tmp_path: Path):
    write_cifar(tmp_path)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    assert data.cifar(tmp_path, batch_size=2).class_names == tuple(names)


def test_a_damaged_cifar_file_is_refused_with_its_reason(tmp_path: Path):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(
        DataError, match="has 21510 bytes, which is 6 records of 3073 bytes and 307"
    ):
        data.cifar(tmp_path, batch_size=2)
    path.write_bytes(whole[:3073] + bytes([10]) + whole[3074:])
    with pytest.raises(DataError, match="record 1: its class is 10, but there are 10"):
        data.cifar(tmp_path, batch_size=2)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes"):
        data.cifar(tmp_path, batch_size=2)


def test_a_cifar_file_that_is_there_packed_and_unpacked_counts_once(tmp_path: Path):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_1.bin"
    (tmp_path / "data_batch_1.bin.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "data_batch_2.bin.part").write_bytes(b"half a download")
    assert len(data.cifar_folder(tmp_path)[0]["train"]["x"]) == 14
    path.unlink()
    assert len(data.cifar_folder(tmp_path)[0]["train"]["x"]) == 14


TABLE = "a,b,kind\n" + "".join(f"{i},{i * i / 10},{'xyz'[i % 3]}\n" for i in range(30))


def test_a_table_has_its_columns_and_classes_and_is_scaled_by_its_training_part(tmp_path: Path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.csv").write_text(TABLE)
    raw, names = data.read_table(tmp_path / "t.csv")
    np.testing.assert_allclose(raw["x"][:, 1], np.arange(30) ** 2 / 10, rtol=1e-6)
    np.testing.assert_array_equal(raw["y"], np.arange(30) % 3)
    assert names == ("x", "y", "z")
    parts = data.table(tmp_path / "t.csv", batch_size=4)
    np.testing.assert_allclose(parts.train.arrays["x"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.arrays["x"].std(0), 1, atol=1e-6)
    assert parts.class_names == names


def test_parquet_and_csv_of_one_table_are_one_data_set(tmp_path: Path):
    csv = pytest.importorskip("pyarrow.csv")
    from pyarrow import parquet

    lines = "".join(f"{i},{i * i / 10}\n" for i in range(30))
    (tmp_path / "t.csv").write_text(f"a,b\n{lines}")
    parquet.write_table(csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    for name in ("csv", "parquet"):
        found, _ = data.read_table(tmp_path / f"t.{name}", target="b")
        np.testing.assert_allclose(found["y"][:, 0], np.arange(30) ** 2 / 10, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n,3\n", {}, "record 1: a is empty"),
        ("a,b\n1,2\nx,3\n", {}, "record 1: a is 'x', which is no number"),
        ("a,b\n1,2\n1e300,3\n", {}, "record 1: a is not finite in float32"),
        ("a,b\n1,2\nnan,3\n", {}, "record 1: a is empty"),
        ("a,b\n1,2\ninf,3\n", {}, "record 1: a is not finite in float32"),
        ("a,b\n1,2\n3\n", {}, "cannot be read"),
        ("a,b\n1,2\n", {"target": "c"}, "has no column 'c': data.target is one of a, b"),
        ("a\n1\n", {}, "has 1 rows and 1 columns"),
        ("a,b\n", {}, "has 0 rows and 2 columns"),
        ("", {}, "cannot be read"),
        ("a,a\n1,2\n", {}, "two columns of one name"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_reason(tmp_path, text, options, message):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        data.read_table(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "suffix", "parquet"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, kind: str):
    pytest.importorskip("pyarrow")
    path = tmp_path / {"missing": "t.csv", "suffix": "t.xls", "parquet": "t.parquet"}[kind]
    if kind != "missing":
        path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=re.escape(str(path))):
        data.read_table(path)


def test_token_bins_are_windows_of_what_was_written(tmp_path: Path):
    tokens = RANDOM.integers(0, 60_000, 500).astype("<u2")
    tokens.tofile(tmp_path / "train.bin")
    tokens[:90].tofile(tmp_path / "val.bin")
    parts = data.token_bins(tmp_path, batch_size=7, context=16, seed=3)
    for step in range(20):
        starts = parts.train.order.rows(step, 1)["index"][0]
        for start, x, y in zip(starts, *(parts.train(step)[n] for n in "xy"), strict=True):
            np.testing.assert_array_equal(x, tokens[start : start + 16])
            np.testing.assert_array_equal(y, tokens[start + 1 : start + 17])
            assert x.dtype == np.int32
    assert sum(parts.validation(s)["weight"].sum() for s in range(parts.validation.steps)) == 89
    assert len(parts.vocabulary) == tokens.max() + 1
    assert parts.vocabulary.encode(parts.vocabulary.decode(tokens[:5])).tolist() == [*tokens[:5]]


def test_one_token_file_is_split_at_its_end(tmp_path: Path):
    np.arange(100, dtype="<u2").tofile(tmp_path / "all.bin")
    parts = data.token_bins(tmp_path / "all.bin", batch_size=2, context=4, validation=0.1)
    assert (len(parts.train.tokens), parts.validation.tokens.tolist()) == (90, [*range(90, 100)])


def test_a_share_beside_a_file_that_validates_is_refused(tmp_path: Path):
    for name in ("train.bin", "val.bin"):
        np.arange(100, dtype="<u2").tofile(tmp_path / name)
    with pytest.raises(DataError, match=r"holds a val\.bin: leave data\.validation at null"):
        data.token_bins(tmp_path, batch_size=2, context=4, validation=0.1)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (bytes(401), {}, "has 401 bytes, which are no whole tokens of 2"),
        (b"", {}, "has 0 bytes"),
        (bytes(20), {}, "has 9 tokens to train on, but a window takes 65"),
        (np.arange(300, dtype="<u2").tobytes(), {"vocabulary": 299}, "holds token 299, but"),
        (b"\xff" * 400, {"dtype": "uint32"}, "does not fit in 32 bits"),
        (bytes(400), {"dtype": "int8"}, "dtype is 'int8'"),
        (bytes(400), {"validation": 0.001}, "has 1 tokens to validate on"),
        (bytes(400), {"context": 0}, "context is 0"),
        (bytes(400), {"validation": 1.0}, "validation is 1.0"),
        (None, {}, "does not exist"),
    ],
)
def test_token_files_that_cannot_be_used_are_refused(tmp_path: Path, content, options, message):
    path = tmp_path / "all.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.token_bins(path, **dict[str, Any]({"batch_size": 2, "context": 64, **options}))
    assert "\n" not in str(caught.value)
