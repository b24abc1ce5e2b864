"""Files of weights: every kind is read as it was written, and no hostile one does any harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from functorch_kit import interop
from functorch_kit import safetensors as safetensors_format
from functorch_kit.interop import torch_pickle

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"
EXACT = ("whole", "shards", "zip.bin", "legacy.bin", "bin_shards")


def golden(name: str) -> dict[str, np.ndarray]:
    found = interop.read_tensors(GOLDEN / name)
    return {
        key: value
        for key, value in found.items()
        if not key.endswith((".attn.bias", "lm_head.weight"))
    }


@pytest.mark.parametrize("name", EXACT)
def test_what_each_writer_left_is_read_alike(name: str):
    from tests.golden.drawn import drawn

    found = golden(name)
    assert len(found) == 28
    for key, value in found.items():
        np.testing.assert_array_equal(value, drawn(key, value.shape))


def test_bfloat16_under_a_name_of_its_own_is_found():
    from tests.golden.drawn import drawn

    found = golden("nested.pth")
    assert len(found) == 28
    for key, value in found.items():
        assert value.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(value, drawn(key, value.shape).astype(ml_dtypes.bfloat16))


def test_what_is_read_takes_no_memory_and_cannot_be_written():
    for name in ("whole", "zip.bin", "legacy.bin"):
        for value in golden(name).values():
            assert not value.flags.owndata
            assert not value.flags.writeable


def refused(path: Path, message: str = ".") -> None:
    with pytest.raises(interop.InteropError, match=message) as caught:
        interop.read_tensors(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


class Opens:
    """What a pickle of an attacker's does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_nothing_that_a_file_asks_for_is_run(tmp_path: Path, protocol: int):
    trace = tmp_path / "trace"
    attack = pickle.dumps({"weight": Opens(trace)}, protocol=protocol)
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("a/data.pkl", attack)
    (tmp_path / "b.bin").write_bytes(attack)
    refused(tmp_path / "a.bin", "the file asks for '_?io open', which is no tensor|the instruction")
    refused(tmp_path / "b.bin")
    assert not trace.exists()


def archive_of(path: Path, table: bytes, numbers: bytes = b"", **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("a/data.pkl", table)
        archive.writestr("a/data/0", numbers)
    return path


def tensor(count: int = 4, offset: Any = 0, shape: Any = (4,), strides: Any = (1,)) -> bytes:
    """A table with one tensor, as PyTorch pickles it."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def row(values: Any) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(count) + b"tQ"
    )  # fmt: skip
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + row(shape)
    made += row(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + made + b"s."


def test_a_tensor_written_by_hand_is_a_window_on_its_numbers(tmp_path: Path):
    numbers = np.arange(6, dtype=np.float32)
    table = tensor(6, 1, (2, 2), (1, 2))
    path = archive_of(tmp_path / "a.bin", table, numbers.tobytes())
    assert interop.read_torch(path)["w"].tolist() == [[1.0, 3.0], [2.0, 4.0]]


DOUBLED = b")" + b"q\x00h\x00\x86" * 60  # a tuple of a tuple twice, of a tuple twice …


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (tensor(offset=1), "reaches beyond"),
        (tensor(shape=(5,)), "reaches beyond"),
        (tensor(shape=(2, 2), strides=(3, 1)), "reaches beyond"),
        (tensor(shape=(2**40, 2**40), strides=(0, 0)), "reaches beyond"),  # one number, 10^24 times
        (tensor(shape=(4, 2), strides=(1, 0)), "reaches beyond"),
        (tensor(shape=(0,)), "a shape that is none"),
        (tensor(shape=(4, 1)), "a shape that is none"),
        (tensor(shape=(-1,)), "no whole number from 0 up"),
        (tensor(offset=-1), "no whole number from 0 up"),
        (tensor(strides=(-1,)), "no whole number from 0 up"),
        (tensor(count=2**60), "are missing or cut off"),
        (tensor(count=3, shape=(3,)), "are missing or cut off"),
        (tensor().replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"), "are missing"),
        (tensor().replace(b"FloatStorage", b"ObjecStorage"), "cannot be read"),
        (tensor().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"), "which is no tensor"),
        (tensor()[:-1], "no end|cannot be read"),
        (tensor()[:40], "cannot be read"),
        (b"\x80\x02}.", "holds no tensors"),
        (b"\x80\x02].", "no dict of tensors"),
        (b"", "no end|cannot be read"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", "asks for 'os system'"),
        (b"(cos\nsystem\nX\x02\x00\x00\x00ido.", "the instruction OBJ"),
        (b"\x80\x02}" + b"X\x01\x00\x00\x00mh\x00s.", "cannot be read"),  # a memo that is empty
        (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "holds no tensors"),  # in itself
        (b"\x80\x02}r\xff\xff\xff\xff.", "holds no tensors"),  # a memo of 2^32 places
        (b"\x80\x02\x8e" + b"\xff" * 8 + b".", "cannot be read"),  # 2^64 bytes
        (b"\x80\x02}" + DOUBLED + b"Ns.", "a tuple stands where none may"),
        (b"\x80\x02" + DOUBLED + b"X\x01\x00\x00\x00a\x93.", "a tuple stands where none may"),
        (b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".", "no dict of tensors"),  # deep
        (b"I" + b"9" * 200 + b"\n.", "INT"),
        (b"c" + b"a" * 10_000_000, "cannot be read"),
    ],
)
def test_a_hostile_table_is_refused_in_one_line(tmp_path: Path, table: bytes, message: str):
    numbers = np.zeros(4, np.float32).tobytes()
    refused(archive_of(tmp_path / "a.bin", table, numbers), message)


def damaged_archives() -> dict[str, bytes]:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a/data.pkl", tensor())
        archive.writestr("a/data/0", bytes(16))
    good = whole.getvalue()
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr("a/data/1", bytes(16))
    with_two = whole.getvalue()
    directory = good.index(b"PK\x01\x02")
    second = good.index(b"PK\x01\x02", directory + 1)

    def patched(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    return {
        "no directory": good[:-30],
        "a remark": good + b"x",
        "directory beyond": patched(len(good) - 6, b"\xf0\xff\xff\x0f"),
        "directory long": patched(len(good) - 10, b"\xf0\xff\xff\x0f"),
        "a large one without a record": patched(len(good) - 6, b"\xff" * 4),
        "member beyond": patched(second + 42, b"\xf0\xff\xff\x0f"),
        "member long": patched(second + 20, b"\xf0\xff\xff\x0f" * 2),
        "name twice": with_two.replace(b"a/data/1", b"a/data/0"),
        "no table": good.replace(b"data.pkl", b"data.pkx"),
        "damaged row": patched(directory, b"XX"),
        "cut": good[: len(good) // 2],
        "start only": good[:4],
        "empty": b"",
        "text": b"hello",
    }


@pytest.mark.parametrize("name", damaged_archives())
def test_a_damaged_archive_is_refused_in_one_line(tmp_path: Path, name: str):
    (tmp_path / "a.bin").write_bytes(damaged_archives()[name])
    refused(tmp_path / "a.bin")


def test_a_packed_archive_is_refused_before_it_grows(tmp_path: Path):
    bomb = archive_of(
        tmp_path / "a.bin", tensor(2**24), bytes(2**26), compression=zipfile.ZIP_DEFLATED
    )
    assert bomb.stat().st_size < 100_000
    refused(bomb, "is packed")


def test_every_cut_of_a_file_of_either_kind_is_refused(tmp_path: Path):
    for name in ("zip.bin", "legacy.bin"):
        whole = (GOLDEN / name).read_bytes()
        for length in range(0, len(whole) - 1, max(len(whole) // 40, 1)):
            (tmp_path / "a.bin").write_bytes(whole[:length])
            refused(tmp_path / "a.bin")


def safetensors(header: Any, numbers: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def described(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


HOSTILE = {
    "empty": b"",
    "short": b"\x01\x00",
    "header beyond the file": safetensors(described(), bytes(8), 2**40),
    "header of 2^64": b"\xff" * 8 + bytes(8),
    "no JSON": safetensors(b"{{", bytes(8)),
    "a list": safetensors([1]),
    "deep": safetensors(b"[" * 200_000),
    "twice": safetensors(json.dumps(described()).encode()[:-1] + b',"w":{}}', bytes(8)),
    "not UTF-8": safetensors(b"\xff\xfe{}"),
    "no dtype": safetensors({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "an object": safetensors(described(dtype="O"), bytes(8)),
    "dtype is a list": safetensors(described(dtype=[]), bytes(8)),
    "shape is text": safetensors(described(shape="2"), bytes(8)),
    "negative shape": safetensors(described(shape=[-2]), bytes(8)),
    "true for one": safetensors(described(shape=[True, 2]), bytes(8)),
    "fraction": safetensors(described(shape=[2.0]), bytes(8)),
    "shape of 2^80": safetensors(described(shape=[2**40, 2**40]), bytes(8)),
    "none of 2^80": safetensors(described(shape=[2**62, 2**62, 0], data_offsets=[0, 0])),
    "too many axes": safetensors(described(shape=[1] * 70 + [2]), bytes(8)),
    "beyond the end": safetensors(described(data_offsets=[8, 16]), bytes(8)),
    "backwards": safetensors(described(data_offsets=[8, 0]), bytes(8)),
    "negative place": safetensors(described(data_offsets=[-8, 0]), bytes(8)),
    "three places": safetensors(described(data_offsets=[0, 8, 8]), bytes(8)),
    "a gap": safetensors(described(data_offsets=[4, 12]), bytes(12)),
    "bytes left": safetensors(described(), bytes(12)),
    "overlap": safetensors({**described(), "v": described()["w"]}, bytes(8)),
    "huge number": safetensors(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b']}}', bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_safetensors_file_is_refused_in_one_line(tmp_path: Path, name: str):
    (tmp_path / "a.safetensors").write_bytes(HOSTILE[name])
    refused(tmp_path / "a.safetensors")


def test_a_header_of_more_than_any_model_needs_is_refused_unread(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(safetensors_format, "MOST_JSON", 100)
    header = {**described(), "__metadata__": {"note": "x" * 100}}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(8)))
    refused(tmp_path / "a.safetensors", "100 are read at most")


def test_a_table_of_more_than_any_model_needs_is_refused_unread(tmp_path: Path, monkeypatch):
    path = archive_of(tmp_path / "a.bin", tensor(), bytes(16))
    assert interop.read_torch(path)["w"].shape == (4,)
    for limit in ("MOST_BYTES", "MOST_INSTRUCTIONS"):
        with monkeypatch.context() as patch:
            patch.setattr(torch_pickle, limit, 10)
            refused(path, "too long")


def shard(folder: Path, file: Any, name: str = "w") -> Path:
    folder.mkdir(exist_ok=True)
    index = {"weight_map": {name: file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


WAYS = ["../a.safetensors", "sub/a.safetensors", "/a.safetensors", "..", "", ".",
        "a\0.safetensors", "./a.safetensors", 3, None, ["a"]]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_an_index_leads_nowhere_but_to_files_beside_it(tmp_path: Path, way: Any):
    good = safetensors(described(), bytes(8))
    for place in (tmp_path, tmp_path / "in", tmp_path / "in" / "sub"):
        place.mkdir(exist_ok=True)
        (place / "a.safetensors").write_bytes(good)
    refused(shard(tmp_path / "in", way))
    assert list(interop.read_tensors(shard(tmp_path / "in", "a.safetensors"))) == ["w"]


def test_a_link_in_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "secret.safetensors").write_bytes(safetensors(described(), bytes(8)))
    for name in ("a.safetensors", "model.safetensors"):
        (tmp_path / "in").mkdir(exist_ok=True)
        os.symlink(tmp_path / "secret.safetensors", tmp_path / "in" / name)
        refused(shard(tmp_path / "in", "a.safetensors"), "is a link")
        (tmp_path / "in" / name).unlink()


def test_an_index_that_promises_what_is_not_there_is_refused(tmp_path: Path):
    refused(shard(tmp_path, "a.safetensors"), "does not exist, or is no file")
    (tmp_path / "a.safetensors").write_bytes(safetensors(described(), bytes(8)))
    refused(shard(tmp_path, "a.safetensors", "v"), "which its index promises")
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it would wait for ever
    refused(shard(tmp_path, "pipe.safetensors"), "is no file")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}',
                                  "[" * 200_000, "\ud800"])  # fmt: skip
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(path, "is no index of weights")


def test_what_is_not_there_or_of_another_kind_is_one_line_with_the_remedy(tmp_path: Path):
    refused(tmp_path / "nope.bin", "does not exist: give a file of weights, or its folder")
    refused(tmp_path, "holds no weights: model.safetensors or the like")
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    refused(tmp_path / "a.txt", "is no file of weights by its name")


@pytest.mark.soak
def test_a_hundred_thousand_mutations_of_good_files_end_in_one_line_or_in_tensors(tmp_path: Path):
    random = np.random.default_rng(0)
    files = {name: (GOLDEN / name).read_bytes() for name in ("zip.bin", "legacy.bin", "nested.pth")}
    files["a.safetensors"] = (GOLDEN / "whole" / "model.safetensors").read_bytes()
    for number in range(100_000):
        name = list(files)[number % len(files)]
        changed = bytearray(files[name])
        # The front and the end are where the structure is.
        for _ in range(int(random.integers(1, 4))):
            near = int(random.integers(0, min(len(changed), 3000)))
            at = near if random.random() < 0.7 else len(changed) - 1 - near
            changed[at] = int(random.integers(0, 256))
        if random.random() < 0.2:
            del changed[int(random.integers(0, len(changed))) :]
        (tmp_path / name).write_bytes(changed)
        try:
            found = interop.read_tensors(tmp_path / name)
        except interop.InteropError as error:
            lines = str(error).splitlines()
        else:
            lines = [name]
            assert all(np.array(value).nbytes <= len(changed) for value in found.values())
        assert len(lines) == 1
