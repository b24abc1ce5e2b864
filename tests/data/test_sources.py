"""Sources: whole batches from maps, image folders, other libraries' data sets."""

from __future__ import annotations

import pickle
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import ArraySource, DataError, RecordError, Source, Subset
from functorch_kit.data.streamed import CHECKS

X = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)
Y = np.arange(40) % 4
INDEX = np.array([39, 0, 7, 7])


def _saved(folder: Path, kind: str) -> Path:
    if kind == "folder":
        np.save(folder / "x.npy", X)
        np.save(folder / "y.npy", Y)
        return folder
    np.savez(folder / "a.npz", x=X, y=Y)
    return folder / "a.npz"


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_map_gives_what_was_saved_and_is_a_source(tmp_path: Path, kind: str):
    source = data.mapped(_saved(tmp_path, kind))
    assert isinstance(source, Source)
    assert len(source) == 40
    batch = source.batch(INDEX)
    np.testing.assert_array_equal(batch["x"], X[INDEX])
    np.testing.assert_array_equal(batch["y"], Y[INDEX])


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_map_stays_in_its_file_and_goes_to_a_worker_as_a_place(tmp_path: Path, kind: str):
    source = data.mapped(_saved(tmp_path, kind))
    sent = pickle.dumps(source)
    assert len(sent) < X.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).batch(INDEX)["x"], X[INDEX])
    (array,) = [leaf for name, leaf in source._opened.arrays.items() if name == "x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_a_map_trains_like_the_arrays_in_it(tmp_path: Path):
    parts = data.npy(_saved(tmp_path, "folder"), batch_size=8, seed=3)
    kept = data.arrays(X, Y, batch_size=8, seed=3)
    for step in range(9):
        for name in ("x", "y"):
            one, other = parts.train(step)[name], kept.train(step)[name]
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
    assert parts.class_names == kept.class_names
    assert [p.order.count for p in parts[:3]] == [p.order.count for p in kept[:3]]


def test_numbers_of_another_byte_order_are_read_as_numbers(tmp_path: Path):
    np.save(tmp_path / "x.npy", X.astype(">f4"))
    np.save(tmp_path / "y.npy", Y.astype(">i2"))
    parts = data.npy(tmp_path, batch_size=8, validation=0, test=0)
    batch, index = parts.train(2), parts.train.order.rows(2, 1)["index"][0]
    np.testing.assert_array_equal(batch["x"], X[index])
    assert (batch["x"].dtype.str, batch["y"].dtype.str) == ("<f4", "<i2")
    jax.device_put(batch)


def _npy(array: np.ndarray, folder: Path) -> bytes:
    np.save(folder / "scratch.npy", array, allow_pickle=True)
    content = (folder / "scratch.npy").read_bytes()
    (folder / "scratch.npy").unlink()
    return content


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: _npy(X, f)[:-1], "cut short: its header says 960 bytes, 959 are there"),
        (lambda f: _npy(X, f)[:9], "its header"),
        (lambda f: b"no numpy here", "wrong magic"),
        (lambda f: b"", "wrong magic"),
        (lambda f: _npy(np.array([{}, 1], object), f), "it holds object, not numbers"),
        (lambda f: _npy(np.array(["a", "b"]), f), "it holds <U1, not numbers"),
        (lambda f: _npy(np.asfortranarray(X[..., 0]), f), "Fortran order"),
        (lambda f: _npy(np.array(3.0), f), "its shape is ()"),
        (lambda f: _npy(X[:0], f), "it has no records"),
        (lambda f: _npy(X, f).replace(b"(40, 3, 2)", b"(-4, 3, 2)"), "its shape is (-4, 3, 2)"),
        (lambda f: _npy(X, f).replace(b"'descr'", b"'dexcr'"), "its header cannot be read"),
    ],
)
def test_a_file_that_cannot_be_mapped_is_refused_with_its_reason(tmp_path, make, message):
    content = make(tmp_path)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        data.mapped(tmp_path)
    assert "x.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compressed_archive_is_refused_with_the_remedy(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", x=X)
    with pytest.raises(DataError, match=r"x\.npy is compressed: save it with numpy.savez"):
        data.mapped(tmp_path / "a.npz")


@pytest.mark.parametrize("wrong", [-1, 40, 2**31])
@pytest.mark.parametrize("kind", ["arrays", "subset", "decoded", "joined"])
def test_no_record_number_is_clamped(kind: str, wrong: int):
    arrays = ArraySource({"x": X})
    spec = {"x": jax.ShapeDtypeStruct((), np.float32)}
    sources: dict[str, Any] = {
        "arrays": arrays,
        "subset": Subset(arrays, np.arange(40)),
        "decoded": data.DecodedSource(40, lambda number: {"x": np.float32(0)}, spec),
        "joined": data.Joined(ArraySource({"x": X[:30]}), ArraySource({"x": X[30:]})),
    }
    with pytest.raises(DataError, match=f"has no record {wrong}: give numbers from 0 to 39"):
        sources[kind].batch(np.array([0, wrong]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of pictures, each of one colour, of several sizes and formats."""
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))):
        (tmp_path / name).mkdir()
        for number, size in enumerate([(9, 7), (8, 8), (20, 5), (5, 20)] * 3):
            suffix = ("png", "bmp")[number % 2]
            image.new("RGB", size, colour).save(tmp_path / name / f"{number}.{suffix}")
    return tmp_path


def test_pictures_are_decoded_to_one_size_with_the_class_of_their_folder(folder: Path):
    source = data.image_folder(folder, size=(6, 4))["train"]
    batch = source.batch(np.arange(len(source)))
    assert batch["x"].shape == (36, 6, 4, 3)
    assert source.class_names == ("blue", "green", "red")
    for x, y in zip(batch["x"], batch["y"], strict=True):
        expected = np.zeros((6, 4, 3), np.uint8)
        expected[..., 2 - y] = 255
        np.testing.assert_array_equal(x, expected)


def test_a_hidden_folder_is_no_class(folder: Path):
    (folder / ".thumbnails").mkdir()
    assert data.image_folder(folder)["train"].class_names == ("blue", "green", "red")


def test_the_middle_of_a_picture_is_taken_and_nothing_is_stretched(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 200  # the middle square
    (tmp_path / "a").mkdir()
    image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    source = data.image_folder(tmp_path, size=(4, 4))["train"]
    np.testing.assert_array_equal(source.batch(np.array([0]))["x"], 200)


def test_an_image_folder_trains_and_its_test_folder_is_the_test_part(folder: Path, tmp_path: Path):
    (tmp_path / "train").mkdir()
    for name in ("blue", "green", "red"):
        (folder / name).rename(tmp_path / "train" / name)
    (tmp_path / "val" / "red").mkdir(parents=True)
    (tmp_path / "train" / "red" / "0.png").rename(tmp_path / "val" / "red" / "0.png")
    parts = data.images(tmp_path, batch_size=4, size=(4, 4), validation=0.2, flip=True)
    assert [p.order.count for p in parts[:3]] == [28, 7, 1]
    assert parts.test(0)["y"][0] == 2
    assert parts.train.spec["x"].shape == (4, 4, 4, 3)
    data.first_batch_fits(parts.train)


def test_a_damaged_picture_is_refused_by_name_or_skipped_and_counted(folder: Path):
    path = folder / "green" / "3.bmp"
    path.write_bytes(path.read_bytes()[:40])
    options: dict[str, Any] = {"batch_size": 36, "size": (4, 4), "validation": 0, "test": 0}
    number = sorted(str(f) for f in (folder / "green").iterdir()).index(str(path)) + 12
    with pytest.raises(RecordError, match=rf"record {number}: .*3\.bmp' cannot be decoded"):
        data.images(folder, **options).train(0)
    skipping = data.images(folder, check="skip", **options).train
    assert float(skipping(0)["weight"].sum()) == 35
    assert set(skipping.inner.skipped) == {number}


@pytest.mark.parametrize("kind", ["missing", "empty", "new class"])
def test_a_folder_that_cannot_be_used_is_refused(folder: Path, kind: str):
    if kind == "new class":
        (folder / "train").mkdir()
        for name in ("blue", "green"):
            (folder / name).rename(folder / "train" / name)
        (folder / "test").mkdir()
        (folder / "red").rename(folder / "test" / "red")
    path = {"missing": folder / "no", "empty": folder / "red", "new class": folder}[kind]
    message = {"missing": "does not exist", "empty": "no images", "new class": "class 'red'"}
    with pytest.raises(DataError, match=message[kind]):
        data.images(path, batch_size=2, size=(4, 4))


class Pairs:
    """What PyTorch's map-style data sets have."""

    classes = ("even", "odd")

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        if number >= 20:
            raise IndexError(number)
        return np.full((2,), number, np.float64), number % 2


def test_a_data_set_of_pairs_trains_by_number():
    parts = data.from_source(data.items(Pairs()), batch_size=4)
    batch = parts.train(3)
    np.testing.assert_array_equal(batch["x"][:, 0] % 2, batch["y"])
    assert parts.class_names == ("even", "odd")
    assert (batch["x"].dtype, batch["y"].dtype) == (np.float32, np.int32)


class OneReader(Pairs):
    """A data set that does not survive two readers at once, as one that seeks in a file."""

    def __init__(self) -> None:
        self.readers = 0

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        self.readers += 1
        time.sleep(0.001)
        assert self.readers == 1, "two at once"
        self.readers -= 1
        return super().__getitem__(number)


def test_threads_take_turns_at_a_data_set_that_promises_nothing():
    parts = data.from_source(data.items(OneReader()), batch_size=8, validation=0.2, test=0.2)
    with ThreadPoolExecutor(4) as pool:
        read = pool.submit(parts.validation, 0)
        parts.train.rows_by(pool, 0, 3)
        read.result()
    assert pickle.loads(pickle.dumps(data.items(Pairs()))).batch(np.array([3]))["y"] == [1]


POISONED = {
    "shape": ((np.zeros(3), 0), "x has shape (3,) where others have (2,)"),
    "dtype": ((np.zeros(2, complex), 0), "x is complex128 where others are float32"),
    "NaN": ((np.array([0, np.nan]), 0), "x has a value that is not finite"),
    "infinite as float32": ((np.array([0, 1e300]), 0), "x has a value that is not finite"),
    "label -1": ((np.zeros(2), -1), "its class is -1: classes count from 0 to 1"),
    "label C": ((np.zeros(2), 2), "its class is 2: classes count from 0 to 1"),
    "label 2**31": ((np.zeros(2), 2**31), "y has a number beyond int32"),
    "label 2**32": ((np.zeros(2), 2**32), "y has a number beyond int32"),
    "empty": ((np.zeros(0), 0), "x has shape (0,) where others have (2,)"),
    "half a pair": ((np.zeros(2),), "it has 1 parts, and part 1 is asked for"),
    "nothing": (None, "it is a NoneType, not a pair of x and y"),
    "error": (OSError("the disk is gone\nfor good"), "the disk is gone"),
}


class Poisoned(Pairs):
    def __init__(self, kind: str):
        self.kind = kind

    def __getitem__(self, number: int) -> Any:
        item = POISONED[self.kind][0] if number == 7 else super().__getitem__(number)
        if isinstance(item, Exception):
            raise item
        return item


@pytest.mark.parametrize("kind", POISONED)
def test_a_poisoned_record_is_refused_by_number(kind: str):
    parts = data.from_source(data.items(Poisoned(kind)), batch_size=20, validation=0, test=0)
    with pytest.raises(RecordError, match=re.escape(POISONED[kind][1])) as caught:
        parts.train(0)
    assert "Poisoned, record 7: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", POISONED)
def test_a_poisoned_record_is_skipped_and_counted_on_request(kind: str):
    parts = data.from_source(
        data.items(Poisoned(kind)), batch_size=20, validation=0, test=0, check="skip"
    )
    batch = parts.train(0)
    order = parts.train.order.rows(0, 1)["index"][0]
    np.testing.assert_array_equal(batch["weight"], (order != 7).astype(np.float32))
    real = order != 7
    np.testing.assert_array_equal(batch["x"][real][:, 0], order[real])
    assert np.isfinite(batch["x"]).all()
    assert set(batch["y"].tolist()) <= {0, 1}
    assert parts.train.skipped.keys() == {7}


def test_a_record_of_a_part_is_named_by_its_number_in_the_whole():
    source = data.items(Poisoned("NaN"))
    parts = data.from_source(source, batch_size=2, validation=0.3, test=0.3)
    with pytest.raises(RecordError, match="record 7: x has a value"):
        _ = [part(step) for part in parts[:3] for step in range(part.steps or 6)]


@pytest.mark.parametrize("check", CHECKS)
def test_a_number_that_does_not_fit_is_never_wrapped_around(check: str):
    values = np.arange(8)
    values[5] = 2**32 + 1
    source = ArraySource({"x": np.zeros((8, 2)), "n": values}, "points")
    pipeline = data.Streamed(source, data.Shuffled(8, 8), check)
    if check == "skip":
        assert float(pipeline(0)["weight"].sum()) == 7
        assert pipeline.skipped == {5: "n has a number beyond int32"}
    else:
        with pytest.raises(RecordError, match="points, record 5: n has a number beyond int32"):
            pipeline(0)


def test_a_record_of_a_fixed_source_is_checked_when_it_first_comes():
    x = np.zeros((64, 3), np.float32)
    x[37] = np.inf
    pipeline = data.Streamed(ArraySource({"x": x}), data.Shuffled(64, 8, seed=1))
    bad = next(step for step in range(8) if 37 in pipeline.order.rows(step, 1)["index"])
    for step in [step for step in range(8) if step != bad] * 2:
        pipeline(step)
    for _ in range(2):
        with pytest.raises(RecordError, match="record 37"):
            pipeline(bad)


class Columns(list):
    column_names = ("pixels", "label")


def test_columns_by_name_are_read_and_a_wrong_name_is_refused():
    rows = Columns({"pixels": [float(i)] * 3, "label": i % 2} for i in range(10))
    source = data.hugging_face(rows, x="pixels", classes=("no", "yes"))
    assert source.batch(np.array([3]))["y"].tolist() == [1]
    with pytest.raises(DataError, match="no column 'image': it has pixels, label"):
        data.hugging_face(rows, x="image")
    splits: Any = {"train": rows, "test": rows}
    with pytest.raises(DataError, match=r"a dict of splits \(train, test\): give one of them"):
        data.hugging_face(splits, x="pixels")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((i for i in range(3)), "has no length"),
        ([], "has no records"),
        ([(np.zeros(2), 1)], "a class: say how many there are with classes="),
        ([("text", 1)], "record 0: x is <U4"),
        ([7.0], "record 0: it is a float, not a pair"),
    ],
)
def test_what_is_no_data_set_is_refused(dataset: Any, message: str):
    with pytest.raises(DataError, match=message):
        data.items(dataset)


def test_array_record_files_are_read_through_grain(tmp_path: Path):
    pytest.importorskip("grain")
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for number in range(10):
        writer.write(np.array([number, number % 2], np.int32).tobytes())
    writer.close()

    def decode(record: bytes) -> tuple[np.float32, np.int32]:
        x, y = np.frombuffer(record, np.int32)
        return np.float32(x), y

    source = data.array_record(tmp_path, decode=decode, classes=2)
    assert source.batch(np.array([9, 4]))["x"].tolist() == [9.0, 4.0]
    (tmp_path / "b.array_record").write_bytes(b"no records")
    with pytest.raises(DataError, match=r"b\.array_record"):
        data.array_record(tmp_path / "b.array_record", decode=decode, classes=2)
