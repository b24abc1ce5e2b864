"""No damaged file is believed, and the file is named."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from functorch_kit.checkpoint import CheckpointError, Damaged, Store, manifest, read

STATE = {"kernel": jnp.arange(40.0).reshape(8, 5), "step": jnp.int32(10)}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    with Store(folder) as store:
        store.save(10, {**STATE, "step": jnp.int32(9)}, score=0.5)
        store.save(20, STATE)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def assert_refused(folder: Path, damaged: Path, step: int = 20) -> None:
    store = Store(folder)
    for attempt in (
        lambda: store.verify(step),
        lambda: store.restore(step, STATE),
        lambda: read(folder / str(step)),
    ):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert str(damaged) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_untouched_step_is_verified(folder: Path):
    Store(folder).verify(10)
    Store(folder).verify(20)
    assert len(files(folder / "20")) == 2


def test_a_flipped_bit_in_any_file_is_found(folder: Path):
    for path in files(folder / "20"):
        whole = path.read_bytes()
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            if not whole:
                continue
            for bit in (0, 5):
                broken = bytearray(whole)
                broken[place] ^= 1 << bit
                path.write_bytes(broken)
                with pytest.raises(CheckpointError) as caught:
                    Store(folder).verify(20)
                assert str(path) in str(caught.value)
        path.write_bytes(whole)
    Store(folder).verify(20)


def test_every_bit_of_a_manifest_counts(folder: Path):
    path = folder / "20" / manifest.NAME
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 7)
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            Store(folder).verify(20)


def test_truncated_grown_deleted_and_zeroed_files_are_found(folder: Path):
    for path in files(folder / "20"):
        whole = path.read_bytes()
        variants = [whole + b"\n"]
        if whole:
            variants += [whole[:-1], whole[: len(whole) // 2], b"", bytes(len(whole))]
        for broken in variants:
            path.write_bytes(broken)
            assert_refused(folder, path)
        path.unlink()
        assert_refused(folder, path)
        path.write_bytes(whole)
    Store(folder).verify(20)


def test_a_file_too_many_is_found(folder: Path):
    (folder / "20" / "extra").write_bytes(b"")
    assert_refused(folder, folder / "20" / "extra")


def test_a_link_in_place_of_a_file_is_not_followed(folder: Path):
    path = folder / "20" / "arrays.bin"
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    assert_refused(folder, path)


def test_files_swapped_between_steps_are_found(folder: Path):
    swapped = folder / "20" / "arrays.bin"
    shutil.copy(folder / "10" / "arrays.bin", swapped)
    assert_refused(folder, swapped)


def test_a_step_under_another_steps_name_is_found(folder: Path):
    shutil.rmtree(folder / "20")
    (folder / "10").rename(folder / "20")
    with pytest.raises(CheckpointError, match=r"20/manifest\.json is of step 10"):
        Store(folder).restore(20, STATE)


def test_one_damaged_step_leaves_the_other_readable(folder: Path):
    for path in files(folder / "20"):
        path.write_bytes(b"")
    found, _ = Store(folder).restore(10, STATE)
    assert jnp.array_equal(found["kernel"], STATE["kernel"])


def test_a_step_that_is_gone_is_forgotten(folder: Path):
    assert (Store(folder).latest(), Store(folder).best()) == (20, 10)
    shutil.rmtree(folder / "10")
    assert (Store(folder).latest(), Store(folder).best()) == (20, None)
    shutil.rmtree(folder / "20")
    assert Store(folder).latest() is None


def test_a_checkpoint_of_another_format_is_refused_and_not_taken_for_damaged(folder: Path):
    path = folder / "20" / manifest.NAME
    content = manifest.read_sealed(path)
    manifest.write_sealed(path, {**content, "format": 99})
    for attempt in (lambda store: store.restore(20, STATE), lambda store: store.newest()):
        with pytest.raises(CheckpointError, match="has format 99") as caught:
            attempt(Store(folder))
        assert not isinstance(caught.value, Damaged)


def test_a_file_that_changes_between_the_look_at_its_size_and_its_reading_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The bytes that are verified are the ones that are used."""
    verify = manifest.verify

    def overtaken(*args, **kwargs):
        verify(*args, **kwargs)
        path = folder / "20" / "arrays.bin"
        path.write_bytes(path.read_bytes()[::-1])

    monkeypatch.setattr(manifest, "verify", overtaken)
    with pytest.raises(Damaged, match=r"arrays\.bin is damaged"):
        Store(folder).restore(20, STATE)


def test_a_file_without_permission_is_not_taken_for_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(CheckpointError, match="Permission denied: ask") as caught:
        Store(folder).newest()
    assert not isinstance(caught.value, Damaged)
