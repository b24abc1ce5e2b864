"""Saving in the background: what returns when, what is kept, and how a failure is heard of."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.checkpoint import CheckpointError, Store, arrays, publish

STATE = {"x": jnp.arange(4.0)}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until the event is set."""
    event, write = threading.Event(), arrays.write

    def slow(folder: Path, host: dict[str, np.ndarray]) -> None:
        assert event.wait(30)
        write(folder, host)

    monkeypatch.setattr(arrays, "write", slow)
    return event


def test_save_returns_before_anything_is_published(tmp_path: Path, gate: threading.Event):
    store = Store(tmp_path)
    store.save(1, STATE)
    assert store.steps() == []
    assert store.latest() is None
    gate.set()
    store.wait()
    assert store.steps() == [1]
    store.close()


def test_the_next_save_waits_for_the_former(tmp_path: Path, gate: threading.Event):
    store = Store(tmp_path)
    store.save(1, STATE)
    second = threading.Thread(target=store.save, args=(2, STATE))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.set()
    second.join(30)
    assert not second.is_alive()
    store.close()
    assert store.steps() == [2]


def test_close_and_the_with_statement_wait(tmp_path: Path, gate: threading.Event):
    threading.Timer(0.2, gate.set).start()
    with Store(tmp_path) as store:
        store.save(1, STATE)
    assert store.steps() == [1]
    assert not [thread for thread in threading.enumerate() if "checkpoint" in thread.name]


def test_restore_waits_for_the_save_under_way(tmp_path: Path, gate: threading.Event):
    with Store(tmp_path) as store:
        store.save(1, STATE)
        threading.Timer(0.2, gate.set).start()
        assert np.array_equal(store.restore(1, STATE)[0]["x"], STATE["x"])


def test_a_donated_buffer_is_freed_and_the_state_before_it_is_saved(
    tmp_path: Path, gate: threading.Event
):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1.0, s), donate_argnums=0)
    state = {"a": jnp.zeros((256, 256)), "b": jnp.zeros(3)}
    for _ in range(3):
        state = step(state)
    before = state
    with Store(tmp_path) as store:
        store.save(3, state)
        for _ in range(5):
            state = step(state)
        jax.block_until_ready(state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        gate.set()
    found, _ = store.restore(3, state)
    assert np.all(np.asarray(found["a"]) == 3)
    assert np.all(np.asarray(found["b"]) == 3)


def test_a_buffer_is_handed_over_in_place_right_after_a_save(tmp_path: Path):
    step = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    x = step(jnp.zeros((512, 512)))
    place = x.unsafe_buffer_pointer()
    with Store(tmp_path) as store:
        store.save(1, {"x": x})
        y = step(x)
        assert y.unsafe_buffer_pointer() == place


def test_a_numpy_leaf_and_the_meta_may_change_after_save(tmp_path: Path, gate: threading.Event):
    state, meta = {"x": np.zeros(3)}, {"loss": [1]}
    with Store(tmp_path) as store:
        store.save(1, state, meta=meta)
        state["x"] += 7
        meta["loss"].append(2)
        gate.set()
    found, kept = store.restore(1, state)
    assert found["x"].tolist() == [0, 0, 0]
    assert kept == {"loss": [1]}


def test_only_the_marked_steps_are_kept(tmp_path: Path):
    with Store(tmp_path) as store:
        for step, best in [(10, True), (20, False), (30, True), (40, False), (50, False)]:
            store.save(step, STATE, best=best)
            store.wait()
            assert store.latest() == step
        assert store.best() == 30
        assert store.steps() == [30, 50]
        store.save(60, STATE, best=True, pins=("epoch-6",))
        store.save(70, STATE)
        store.save(80, STATE, best=True)
    assert store.steps() == [60, 80]
    assert store.marks() == {"latest": 80, "best": 80, "epoch-6": 60}
    assert sorted(os.listdir(tmp_path)) == ["60", "80", "marks.json"]


def test_nothing_is_removed_before_the_new_step_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(tmp_path)
    store.save(1, STATE)
    store.wait()

    def full(folder: Path, host: dict[str, np.ndarray]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(arrays, "write", full)
    store.save(2, STATE)
    with pytest.raises(CheckpointError):
        store.wait()
    store.restore(1, STATE)
    assert sorted(os.listdir(tmp_path)) == ["1", "marks.json"]


def test_going_back_makes_an_earlier_step_the_latest(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(50, STATE, best=True)
        store.save(100, STATE)
        store.save(60, STATE)
    assert store.latest() == 60
    assert store.steps() == [50, 60]


def test_a_step_saved_again_is_replaced_and_keeps_its_marks(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(5, {"x": jnp.zeros(2)}, best=True)
        store.save(5, {"x": jnp.ones(2)}, meta={"again": True})
    found, meta = store.restore(5, {"x": jnp.zeros(2)})
    assert found["x"].tolist() == [1, 1]
    assert meta == {"again": True}
    assert store.marks() == {"latest": 5, "best": 5}
    assert sorted(os.listdir(tmp_path)) == ["5", "marks.json"]


@pytest.mark.parametrize("reaction", ["save", "wait", "close"])
def test_a_failure_in_the_thread_is_raised_once_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaction: str
):
    write = arrays.write

    def full(folder: Path, host: dict[str, np.ndarray]) -> None:
        monkeypatch.setattr(arrays, "write", write)
        raise RuntimeError("layer of words") from OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(arrays, "write", full)
    store.save(1, STATE)
    calls: dict[str, Callable[[], None]] = {
        "save": lambda: store.save(2, STATE),
        "wait": store.wait,
        "close": store.close,
    }
    with pytest.raises(CheckpointError) as caught:
        calls[reaction]()
    assert str(tmp_path / "1") in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    if reaction != "close":
        store.save(2, STATE)
    store.close()
    assert store.steps() == ([] if reaction == "close" else [2])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "checkpoints")
    store.save(1, STATE)
    with pytest.raises(CheckpointError, match="file/checkpoints/1 could not be saved"):
        store.wait()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path):
    tmp_path.chmod(0o500)
    store = Store(tmp_path / "checkpoints")
    store.save(1, STATE)
    with pytest.raises(CheckpointError, match="checkpoints/1 could not be saved: PermissionError"):
        store.wait()


def test_an_error_in_the_body_is_not_hidden_by_one_in_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path, host: dict[str, np.ndarray]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(arrays, "write", full)

    def body() -> None:
        with Store(tmp_path) as store:
            store.save(1, STATE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        body()
    assert "No space left" in caught.value.__notes__[0]


def test_a_closed_store_reads_but_does_not_save(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(1, STATE)
    store.close()
    store.restore(1, STATE)
    with pytest.raises(CheckpointError, match="was closed"):
        store.save(2, STATE)


def test_reading_touches_nothing_and_writing_removes_leftovers(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(1, STATE)
    (tmp_path / ".tmp-2-123-0" / "arrays").mkdir(parents=True)
    (tmp_path / ".tmp-marks-123-1").write_text("{")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "007").mkdir()
    before = sorted(map(str, tmp_path.rglob("*")))
    store = Store(tmp_path)
    store.restore(1, STATE)
    assert (store.steps(), store.latest()) == ([1], 1)
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    with store:
        store.save(2, STATE)
    assert sorted(os.listdir(tmp_path)) == ["007", "2", "marks.json", "notes.txt"]


def test_a_folder_that_does_not_exist_is_an_empty_store(tmp_path: Path):
    store = Store(tmp_path / "none")
    assert (store.steps(), store.latest(), store.best(), store.marks()) == ([], None, None, {})
    store.close()
    assert not (tmp_path / "none").exists()


def test_retiring_never_takes_a_step_that_is_not_ours(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(1, STATE)
    publish.retire(tmp_path)
    assert store.steps() == [1]


SCRIPT = """
import resource, sys
import jax.numpy as jnp
from functorch_kit.checkpoint import CheckpointError, Store
store = Store(sys.argv[1])
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT + script, str(folder)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError('stop')"])
def test_a_process_that_leaves_without_waiting_still_finishes_its_save(tmp_path: Path, ending: str):
    done = run(f"store.save(4, {{'x': jnp.ones(1000)}})\n{ending}", tmp_path)
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(ending, 1), done.stderr
    if (3, 12, 0) <= sys.version_info < (3, 12, 2):  # no new threads at exit, so no Orbax
        assert "could not be saved" in done.stderr
        return
    assert Store(tmp_path).steps() == [4]
    Store(tmp_path).verify(4)


def test_a_full_disk_leaves_the_former_step_and_is_said_in_one_line(tmp_path: Path):
    script = """
small, large = {"x": jnp.ones(10)}, {"x": jnp.ones((1000, 1000))}
store.save(1, small)
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
store.save(2, large)
try:
    store.wait()
except CheckpointError as error:
    print(error)
assert store.steps() == [1]
store.restore(1, small)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(3, large, best=True)
store.close()
store.restore(3, large)
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / '2'} could not be saved" in done.stdout
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["3", "marks.json"]


def test_an_unread_failure_is_said_at_exit(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = run("store.save(1, {'x': jnp.ones(1)})", tmp_path / "file" / "sub")
    assert "could not be saved" in done.stderr
    assert done.stderr.count("\n") == 1


def test_orbax_is_not_imported_before_it_is_needed():
    done = run("assert 'orbax' not in sys.modules\nassert not store.steps()", Path("/nonexistent"))
    assert done.returncode == 0, done.stderr


def test_a_relative_folder_is_as_good_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with Store("runs/a") as store:
        store.save(1, {"w": jnp.ones(2)})
    assert Store(tmp_path / "runs/a").latest() == 1


def test_a_wait_that_is_interrupted_does_not_lose_the_save(gate, tmp_path: Path):
    store = Store(tmp_path)
    store.save(1, STATE)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        store.wait()
    threading.Timer(0.3, gate.set).start()
    store.wait()
    assert store.steps() == [1]
