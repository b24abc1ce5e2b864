"""The file with the bytes of every leaf: written whole, hashed on the way."""

import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit.checkpoint import packed

SIZES = [1, 1000, packed._HASHED_APART - 1, packed._HASHED_APART, 3_000_001]


def content(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_the_fingerprint_is_that_of_the_file(tmp_path: Path, size: int):
    found = packed.write(tmp_path / "file", content(size))
    written = (tmp_path / "file").read_bytes()
    assert written == content(size).tobytes()
    assert found == {"bytes": size, "sha256": hashlib.sha256(written).hexdigest()}


def test_without_a_thread_to_be_had_the_fingerprint_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = packed.write(tmp_path / "a", content(2_000_000))

    def too_late(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", too_late)
    assert packed.write(tmp_path / "b", content(2_000_000)) == expected


def test_a_write_that_takes_only_a_part_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Slow(io.FileIO):
        def write(self, b: Any, /) -> int:
            return super().write(b[:700])

    monkeypatch.setattr("builtins.open", lambda path, mode, buffering: Slow(path, mode))
    packed.write(tmp_path / "file", content(5000))
    assert (tmp_path / "file").read_bytes() == content(5000).tobytes()


def test_a_file_is_never_written_over(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        packed.write(tmp_path / "file", content(10))
    assert (tmp_path / "file").read_text() == "mine"
