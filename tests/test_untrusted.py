"""Files from elsewhere are read whole, within bounds, and through no link."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from functorch_kit.untrusted import MOST_JSON, FileError, parse_json, read_plain


def test_the_bytes_are_those_of_the_file(tmp_path: Path):
    content = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "a").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert read_plain(tmp_path / "a", size=100_000, sha256=digest).tobytes() == content


def test_another_sum_size_or_limit_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abcd")
    with pytest.raises(FileError, match="is not what was written"):
        read_plain(tmp_path / "a", sha256="0" * 64)
    with pytest.raises(FileError, match="has 4 bytes, and 5 were written"):
        read_plain(tmp_path / "a", size=5)
    with pytest.raises(FileError, match="has 4 bytes, and 3 are read at most"):
        read_plain(tmp_path / "a", most=3)


def test_what_is_no_plain_file_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # opened as usual, it would wait for ever
    for name, message in {
        "link": "is a link: put the file itself there", "folder": "is no plain file",
        "pipe": "is no plain file", "nothing": "does not exist", "a\0": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(FileError, match=message):
            read_plain(tmp_path / name)


def test_a_hole_larger_than_memory_is_not_read(tmp_path: Path):
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(FileError, match=r"bytes, and .* are read at most"):
        read_plain(tmp_path / "hole")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 200_000, "it is nested too deep"),
        (b'{"a": NaN}', "NaN is no number of JSON's"),
        (b"[Infinity]", "Infinity is no number of JSON's"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands in it twice"),
        (b"9" * 5000, "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"", "cannot be read"),
        (b" " * (MOST_JSON + 1), "are read at most"),
    ],
)
def test_json_that_means_harm_is_refused_in_one_line(text: bytes, message: str):
    with pytest.raises(FileError, match=message) as caught:
        parse_json(text, "it")
    assert str(caught.value).isprintable()
