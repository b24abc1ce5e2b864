"""F4: no damaged file is believed; it is named, or passed over with a line."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from functorch_kit.checkpoint import Damaged, Keep, Store, manifest, packed, read


def state(step: int) -> dict[str, Any]:
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    rows = jnp.full((64, 8), step, jnp.float32)
    return {
        "params": {"kernel": jnp.linspace(step, step + 1, 9000), "bias": jnp.zeros(7)},
        "spread": jax.device_put(rows, NamedSharding(mesh, PartitionSpec("d"))),
        "step": jnp.int32(step),
        "key": jax.random.key(step),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two steps, of which the newer one will be damaged; Orbax's files are among its own."""
    with Store(tmp_path / "checkpoints", Keep(latest=2)) as store:
        store.save(10, state(10))
        store.save(20, state(20))
    return tmp_path / "checkpoints"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "20").rglob("*") if path.is_file())


def assert_found(folder: Path, path: Path) -> None:
    """The file is named by whoever asks for its step, and the older step is used with a line."""
    store, like = Store(folder), state(0)
    for attempt in (lambda: store.restore(20, like), lambda: read(folder / "20")):
        with pytest.raises(Damaged) as caught:
            attempt()
        assert str(folder / "20") in str(caught.value)
        # A manifest that fits another step is itself as it was written: a file does not fit it.
        assert str(path) in str(caught.value) or path.name == manifest.NAME
        assert "\n" not in str(caught.value)
    said: list[str] = []
    assert store.newest(said.append) == 10
    assert len(said) == 1
    assert str(path) in said[0]


def damages(
    path: Path, other: Path, truncations: int, flips: int, chance: random.Random
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways of damaging a file, by name; each leaves something other than what was there."""
    whole = path.read_bytes()
    size = len(whole)

    def flipped() -> bytes:
        place, bit = chance.randrange(size), chance.randrange(8)
        return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]

    for _ in range(min(truncations, size)):
        yield "truncated", lambda: path.write_bytes(whole[: chance.randrange(size)])
    for _ in range(flips if size else 0):
        yield "flipped", lambda: path.write_bytes(flipped())
    yield "grown", lambda: path.write_bytes(whole + b"\0")
    if whole.strip(b"\0"):
        yield "zeroed", lambda: path.write_bytes(bytes(size))
    yield "deleted", path.unlink
    yield "a link", lambda: (path.unlink(), path.symlink_to(other))
    yield "a folder", lambda: (path.unlink(), path.mkdir())
    if other.exists() and other.read_bytes() != whole:
        yield "swapped between steps", lambda: shutil.copyfile(other, path)


def damage_every_file(folder: Path, truncations: int, flips: int) -> dict[str, int]:
    """How often each way was tried; each time it was found."""
    chance = random.Random(0)
    tried: dict[str, int] = {}
    for path in files(folder):
        whole = path.read_bytes()
        other = folder / "10" / path.relative_to(folder / "20")
        for name, damage in damages(path, other, truncations, flips, chance):
            damage()
            assert_found(folder, path)
            tried[name] = tried.get(name, 0) + 1
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(True)
            path.write_bytes(whole)
    Store(folder).verify(20)
    return tried


def test_a_damaged_file_of_any_kind_is_found(folder: Path):
    assert len(files(folder)) > 8
    tried = damage_every_file(folder, truncations=2, flips=3)
    assert len(tried) == 8


@pytest.mark.soak
def test_fifty_truncations_and_two_hundred_flips_of_each_file_are_found(folder: Path, table):
    with table.row("F4", "each file of a checkpoint truncated, flipped, zeroed, swapped …") as row:
        tried = damage_every_file(folder, truncations=50, flips=200)
        row.count = sum(tried.values())
        ways = ", ".join(f"{name} {count}" for name, count in tried.items())
        row.result = (
            f"none silent: each file named, and the older step used with a line ({ways};"
            f" {len(files(folder))} files)"
        )


def test_whole_folders_exchanged_between_steps_are_found(folder: Path):
    os.rename(folder / "10", folder / "swap")
    os.rename(folder / "20", folder / "10")
    os.rename(folder / "swap", folder / "20")
    for step in (10, 20):
        with pytest.raises(Damaged, match=rf"{step}/manifest\.json is of step {30 - step}"):
            Store(folder).restore(step, state(0))


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    tmp_path: Path, launch, undisturbed
):
    launch(tmp_path / "run", "--full-at", 100).communicate(timeout=300)
    folder = tmp_path / "run" / "checkpoints"
    assert Store(folder).latest() == 90
    path = folder / "90" / packed.NAME
    path.write_bytes(path.read_bytes()[:-1])
    out, err = launch(tmp_path / "run").communicate(timeout=300)
    assert out.strip() == undisturbed.hash, err
    assert err.count("\n") == 1
    assert err.startswith(f"step 90 is passed over: {path} is damaged")
    assert (folder / "90.damaged" / packed.NAME).exists()
