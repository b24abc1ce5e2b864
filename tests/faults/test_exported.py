"""F12: a program that is damaged, expired or too new never reaches what would make it of bytes."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from functorch_kit import export, nn
from functorch_kit.errors import UserError
from functorch_kit.export import artifact as artifacts
from functorch_kit.export.manifest import file_of
from tests.export.hostile import sealed

pytest.importorskip("flatbuffers")

X = np.ones((2, 3), np.float32)


class Reached(BaseException):
    """Nothing that expects mere errors stops it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound artifact."""
    folder = tmp_path_factory.mktemp("exported") / "whole"
    model = nn.dense(2)
    export.save(folder, model, *model.init(jax.random.key(0), X), X)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage, which must not come to the deserializer."""

    def reached(content: Any) -> Any:
        raise Reached

    monkeypatch.setattr(jax.export, "deserialize", reached)
    return shutil.copytree(whole, tmp_path / "copy")


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        export.load(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_sound_copy_gets_there(copy: Path):
    with pytest.raises(Reached):
        export.load(copy)


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.soak)])
def test_flipped_and_truncated_files_are_named_and_not_used(copy: Path, table: Any, count: int):
    chance = np.random.default_rng(count)
    files = sorted(copy.iterdir())
    assert len(files) == 3
    with table.row("F12", "exported programs: a bit flipped, or cut short, in each file") as row:
        for number in range(count):
            path = files[number % 3]
            sound = path.read_bytes()
            content, place = bytearray(sound), int(chance.integers(len(sound)))
            if number % 2:
                content[place] ^= 1 << int(chance.integers(8))
            else:
                del content[place:]
            path.write_bytes(content)
            assert str(path.name) in _refused(copy)
            path.write_bytes(sound)
        row.count = count
        row.result = "each refused in one line that names the file; none reached the deserializer"


def test_a_file_that_is_missing_is_named(copy: Path):
    for path in sorted(copy.iterdir()):
        sound = path.read_bytes()
        path.unlink()
        assert path.name in _refused(copy)
        path.write_bytes(sound)


def test_an_expired_one_is_refused_on_the_day_after(copy: Path, monkeypatch: pytest.MonkeyPatch):
    last = datetime.date.fromisoformat(export.read(copy).expires or "")
    assert last - datetime.datetime.now(datetime.UTC).date() == datetime.timedelta(180)
    monkeypatch.setattr(artifacts, "_today", lambda: last)
    with pytest.raises(Reached):
        export.load(copy)
    monkeypatch.setattr(artifacts, "_today", lambda: last + datetime.timedelta(1))
    assert f"expired on {last}: export the run again" in _refused(copy)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("versions", "jax"), "99.1.0", "was made by jax 99.1.0, and this is"),
        (("calling_convention",), 10_000, "use the version that made it"),
        (("format",), "onnx", "lists other files than model.onnx"),
        (("inputs", 0, "dtype"), "float64", "its records are others than its program takes"),
    ],
)
def test_what_another_version_made_is_refused_before_it_is_read(
    copy: Path, path: tuple[Any, ...], value: Any, message: str
):
    content = json.loads((copy / "manifest.json").read_text())["content"]
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (copy / "manifest.json").write_bytes(sealed(content))
    assert message in _refused(copy)


def test_a_manifest_of_another_program_does_not_pass(whole: Path, tmp_path: Path):
    """Sound bytes of one artifact under the name of another: the signature tells."""
    model = nn.dense(2)
    y = np.ones((2, 4), np.float32)
    export.save(tmp_path / "other", model, *model.init(jax.random.key(0), y), y)
    mixed = shutil.copytree(whole, tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / "program.bin", mixed / "program.bin")
    content = json.loads((mixed / "manifest.json").read_text())["content"]
    theirs = json.loads((tmp_path / "other" / "manifest.json").read_text())["content"]
    content["files"]["program.bin"] = theirs["files"]["program.bin"]
    (mixed / "manifest.json").write_bytes(sealed(content))
    assert "does not take what its manifest says" in _refused(mixed)


def test_bytes_that_are_no_program_are_an_error_in_one_line(whole: Path, tmp_path: Path):
    """Sealed by whoever wrote them: a sum is no proof of good will, nor of a program."""
    folder = shutil.copytree(whole, tmp_path / "random")
    (folder / "program.bin").write_bytes(b"")
    content = json.loads((folder / "manifest.json").read_text())["content"]
    file = file_of(folder / "program.bin")
    content["files"]["program.bin"] = {"bytes": file.bytes, "sha256": file.sha256}
    (folder / "manifest.json").write_bytes(sealed(content))
    assert "cannot be read" in _refused(folder)
