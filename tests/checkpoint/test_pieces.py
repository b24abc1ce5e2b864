"""Pieces that several processes write, and one publishes, are the leaves that they were."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from functorch_kit.checkpoint import CheckpointError, Damaged, manifest, pieces, publish

LEAVES = {
    "wide": (jnp.arange(96.0).reshape(8, 12), PartitionSpec("a", "b")),
    "half": (jnp.arange(10, dtype=jnp.bfloat16), PartitionSpec("b")),
    "rows": (jnp.arange(24, dtype=jnp.int8).reshape(8, 3), PartitionSpec("a")),
}
EXPECTED = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, (leaf, _) in LEAVES.items()}


@pytest.fixture
def blocks() -> list[pieces.Piece]:
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    placed = {
        name: jax.device_put(leaf, NamedSharding(mesh, spec))
        for name, (leaf, spec) in LEAVES.items()
    }
    return [piece for name, leaf in placed.items() for piece in pieces.take(name, leaf)]


def written(folder: Path, blocks: list[pieces.Piece], processes: int = 3) -> Path:
    """What so many processes write, collected in a checkpoint's folder."""
    (target := folder / "step").mkdir()
    for process in range(processes):
        pieces.write(folder / "shared", process, blocks[process::processes])
    known = pieces.collect(folder / "shared", processes, target)
    manifest.write(target, {"step": 1}, known)
    return target


def test_each_block_is_taken_once_and_together_they_are_the_leaves(tmp_path: Path, blocks):
    assert [piece.leaf for piece in blocks] == ["wide"] * 4 + ["half"] * 2 + ["rows"] * 2
    target = written(tmp_path, blocks)
    found = pieces.read(target / pieces.NAME, EXPECTED)
    for name, (leaf, _) in LEAVES.items():
        assert found[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found[name], np.asarray(leaf))


def test_the_sums_that_the_writers_made_are_those_of_the_files(tmp_path: Path, blocks):
    target = written(tmp_path, blocks)
    listed = manifest.read_sealed(target / manifest.NAME)["files"]
    assert sorted(listed) == sorted(
        f"pieces/{process}.{kind}" for process in range(3) for kind in ("bin", "json")
    )
    manifest.verify(target, listed)


def test_a_piece_that_is_missing_is_found_and_its_leaf_named(tmp_path: Path, blocks):
    target = written(tmp_path, blocks[:-1])
    with pytest.raises(Damaged, match="lacks a part of leaf 'rows'"):
        pieces.read(target / pieces.NAME, EXPECTED)


def test_a_leaf_that_nobody_asked_for_is_refused(tmp_path: Path, blocks):
    target = written(tmp_path, blocks)
    with pytest.raises(Damaged, match="lists leaf 'wide', which is none"):
        pieces.read(target / pieces.NAME, {"half": EXPECTED["half"]})


def test_nobody_waits_for_a_process_that_could_not_write(tmp_path: Path, blocks):
    pieces.write(tmp_path / "shared", 0, blocks)
    pieces.failed(tmp_path / "shared", 1, "no space left on device")
    (tmp_path / "step").mkdir()
    with pytest.raises(CheckpointError, match="process 1 could not write its part: no space left"):
        pieces.collect(tmp_path / "shared", 2, tmp_path / "step")


def test_pieces_of_a_team_that_is_gone_are_removed_and_those_of_this_one_stay(tmp_path: Path):
    for name in ("gone", "mine"):
        pieces.write(tmp_path / f"{pieces.BEGINS}{name}-1", 0, [])
    publish.prepare(tmp_path, team="mine")
    assert [path.name for path in tmp_path.iterdir()] == [".pieces-mine-1"]
    publish.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
