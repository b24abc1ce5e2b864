"""F11: files that mean harm are refused in one line, and nothing else happens."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit import safetensors
from functorch_kit.export import manifest as manifests
from tests.export import hostile
from tests.export.hostile import Case

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 5
MOST_MEMORY = 256 << 20


def read_all(cases: Iterable[Case], folder: Path, seconds: float = 280) -> list[dict[str, Any]]:
    """What became of each, read in one other process; all of them are answered for."""
    listed = folder / "cases.json"
    listed.write_text(json.dumps([(case.name, case.kind, str(case.path)) for case in cases]))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.export.reading", str(folder), str(listed)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    last = rows[-1]["name"] if rows else "nothing"
    assert ended.returncode == 0, f"it ended after {last}: {ended.stderr[-2000:]}"
    return rows


def faults(rows: list[dict[str, Any]], cases: list[Case]) -> list[str]:
    """What a reader did that none may do."""
    found: list[str] = []
    for row, case in zip(rows, cases, strict=True):
        size = _size(case.path)
        if row["did"]:
            found.append(f"{case.name}: {row['did']}")
        if row["seconds"] > MOST_SECONDS:
            found.append(f"{case.name}: {row['seconds']:.1f} s")
        if row["memory"] > 2 * size + MOST_MEMORY:
            found.append(f"{case.name}: {row['memory'] >> 20} MiB for {size} bytes")
        if row["ended"] != "read" and not row["ended"].startswith("refused: "):
            found.append(f"{case.name}: {row['ended']}")
    return found


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files)


def test_each_of_two_hundred_hostile_files_is_refused_and_does_nothing(tmp_path: Path, table: Any):
    marker = tmp_path / "code_was_run"
    folder = tmp_path / "hostile"
    cases = hostile.write(folder, marker)
    before = sorted(folder.rglob("*"))
    with table.row("F11", "fixed hostile files: pickles, bombs, links, overlaps, depth") as row:
        assert len(cases) >= 200
        rows = read_all(cases, folder)
        assert faults(rows, cases) == []
        assert [each["name"] for each in rows if each["ended"] == "read"] == []
        assert not marker.exists()
        assert sorted(folder.rglob("*")) == sorted([*before, folder / "cases.json"])
        row.count = len(cases)
        most = max(each["memory"] for each in rows) >> 20
        slowest = max(each["seconds"] for each in rows)
        row.result = (
            "each refused in one line; no code run, nothing written, nothing outside read; at most"
            f" {slowest:.1f} s and {most} MiB"
        )


def test_what_is_whole_reaches_the_program_and_no_further_here(tmp_path: Path):
    """The control: without damage, the same reader gets as far as the deserializer."""
    hostile.good_artifact(tmp_path / "whole")
    (row,) = read_all([Case("whole", "artifact", tmp_path / "whole")], tmp_path)
    assert row["ended"].startswith("Reached")


def _seeds(folder: Path) -> list[Case]:
    """Sound files of each kind."""
    from PIL import Image

    folder.mkdir()
    random_numbers = np.random.default_rng(0)
    cases = [Case("whole", "artifact", folder / "artifact")]
    hostile.good_artifact(folder / "artifact")
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
    safetensors.write(folder / "a.safetensors", arrays, {"format": "np"})
    cases.append(Case("tensors", "tensors", folder / "a.safetensors"))
    np.save(folder / "x.npy", random_numbers.normal(size=(3, 2, 3)).astype(np.float32))
    cases.append(Case("npy", "npy", folder / "x.npy"))
    pixels = random_numbers.integers(0, 256, (9, 7, 3), np.uint8)
    for ending in ("png", "jpg", "gif", "bmp", "ppm", "tif", "webp"):
        Image.fromarray(pixels).save(folder / f"image.{ending}")
        cases.append(Case(ending, "image", folder / f"image.{ending}"))
    (folder / "t.csv").write_text("a,b,c\n1,2.5,x\n-3e4,0,y\n")
    (folder / "t.txt").write_text("abc\nacb\n")
    return [
        *cases,
        Case("table", "table", folder / "t.csv"),
        Case("text", "text", folder / "t.txt"),
    ]


def mutated(content: bytes, source: random.Random) -> bytes:
    """The same file with a few bytes changed, left out, repeated or put in."""
    made = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        place, length = source.randrange(len(made) + 1), source.choice((1, 1, 2, 4, 8, 64))
        match source.randrange(6):
            case 0:
                made[place : place + length] = source.randbytes(len(made[place : place + length]))
            case 1:
                del made[place : place + length]
            case 2:
                made[place:place] = made[place : place + length] * source.choice((1, 2, 200))
            case 3:
                size = source.choice((1, 2, 4, 8))
                value = source.choice((0, 1, (1 << (8 * size - 1)) - 1, (1 << 8 * size) - 1))
                made[place : place + size] = value.to_bytes(size, source.choice(("little", "big")))
            case 4:
                words = (b"[", b"{", b'"', b"-", b"9" * 30, b"null", b"1e999", b"\\u0000", b"../")
                made[place:place] = source.choice(words)
            case _:
                del made[place:]
    return bytes(made)


def _mutation(seed: Case, number: int, folder: Path, source: random.Random) -> Case:
    path = folder / f"{number}{seed.path.suffix}"
    if seed.kind != "artifact":
        path.write_bytes(mutated(seed.path.read_bytes(), source))
        return Case(f"{seed.name} {number}", seed.kind, path)
    path.mkdir()
    names = [manifests.NAME, manifests.PROGRAM, manifests.PARAMS]
    chosen = source.choice([manifests.NAME, manifests.NAME, *names])
    for name in names:
        content = (seed.path / name).read_bytes()
        if name == chosen:
            content = mutated(content, source)
            if name == manifests.NAME and source.random() < 0.8:
                content = _sealed_again(content)
        (path / name).write_bytes(content)
    return Case(f"{seed.name} {number}", seed.kind, path)


def _sealed_again(text: bytes) -> bytes:
    """What whoever changes a manifest can do as well: give it the right sum."""
    try:
        content = json.loads(text)["content"]
        return hostile.sealed(content) if isinstance(content, dict) else text
    except (ValueError, LookupError, TypeError, RecursionError):
        return text


@pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=pytest.mark.soak)])
def test_files_with_changed_bytes_are_refused_in_one_line_or_read(
    tmp_path: Path, table: Any, count: int
):
    source, seeds = random.Random(count), _seeds(tmp_path / "seeds")
    refused = done = slowest = most = 0
    with table.row("F11", "sound files with bytes changed, left out, repeated, put in") as row:
        while done < count:
            folder = tmp_path / f"mutations_{done}"
            folder.mkdir()
            size = min(2000, count - done)
            cases = [
                _mutation(seeds[(done + place) % len(seeds)], place, folder, source)
                for place in range(size)
            ]
            rows = read_all(cases, folder, 2000)
            # An artifact whose changes do not matter gets as far as a sound one.
            for each in rows:
                each["ended"] = "read" if each["ended"].startswith("Reached") else each["ended"]
            assert faults(rows, cases) == []
            refused += sum(each["ended"] != "read" for each in rows)
            slowest = max(slowest, *(each["seconds"] for each in rows))
            most = max(most, *(each["memory"] for each in rows))
            done += size
            shutil.rmtree(folder)
        assert 0.2 * count < refused < count
        row.count = count
        row.result = (
            f"{refused} refused in one line, the others read; no crash, nothing outside; at most"
            f" {slowest:.1f} s and {most >> 20} MiB"
        )
