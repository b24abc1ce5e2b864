"""F5: a disk that is full ends the run, costs no checkpoint, and once there is room it goes on."""

import subprocess
from pathlib import Path

import jax.numpy as jnp
import pytest

from functorch_kit.checkpoint import CheckpointError, Store


def fails_and_goes_on(folder: Path, launch, undisturbed, step: int) -> None:
    """Let writing fail from the save of ``step`` on; then make room."""
    process = launch(folder, "--full-at", step)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert err.count("\n") == 1
    assert f"checkpoints/{step} could not be saved: OSError: [Errno 27] File too large" in err
    store = Store(folder / "checkpoints")
    assert store.newest() == (step - 10 or None)
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".tmp-")]
    out, err = launch(folder).communicate(timeout=300)
    assert out.strip() == undisturbed.hash, err


def test_a_run_on_a_full_disk_ends_with_an_error_and_goes_on_when_there_is_room(
    tmp_path: Path, launch, undisturbed
):
    fails_and_goes_on(tmp_path / "run", launch, undisturbed, 60)


@pytest.mark.soak
def test_a_disk_may_be_full_from_any_save_on(tmp_path: Path, launch, undisturbed, table):
    with table.row("F5", "files limited to 60 kB from one save on (RLIMIT_FSIZE)") as row:
        for step in range(10, 201, 10):
            fails_and_goes_on(tmp_path / f"{step}", launch, undisturbed, step)
            row.count += 1
        row.result = (
            "exit code 2 and one line; the checkpoint before intact, nothing half-written left;"
            " with room again the hash of an undisturbed run"
        )


@pytest.mark.soak
def test_a_file_system_without_room_costs_no_checkpoint(tmp_path: Path, table):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with table.row("F5", "a file system of 300 kB filled by saves (ENOSPC)") as row:
            small, large = {"x": jnp.ones(5_000)}, {"x": jnp.ones(100_000)}
            store = Store(tmp_path)
            for step in range(20):
                store.save(2 * step, small)
                store.save(2 * step + 1, large)
                with pytest.raises(CheckpointError, match="No space left on device"):
                    store.wait()
                assert store.newest() == 2 * step
                store.restore(2 * step, small)
                row.count += 1
            store.close()
            row.result = "each failure heard of; the step before restored; the next small one saved"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
