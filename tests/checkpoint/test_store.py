"""Saving in the background: what returns when, what is kept, and how a failure is heard of."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.checkpoint import CheckpointError, Locked, Store, packed

STATE = {"x": jnp.arange(4.0)}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until the event is set."""
    event, write = threading.Event(), packed.write

    def slow(path: Path, content: np.ndarray) -> dict[str, Any]:
        assert event.wait(30)
        return write(path, content)

    monkeypatch.setattr(packed, "write", slow)
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
    assert store.steps() == [1, 2]


def test_close_and_the_with_statement_wait(tmp_path: Path, gate: threading.Event):
    threading.Timer(0.2, gate.set).start()
    with Store(tmp_path) as store:
        store.save(1, STATE)
    assert store.steps() == [1]


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


def test_nothing_is_removed_before_the_new_step_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(tmp_path)
    store.save(1, STATE)
    store.wait()

    def full(folder: Path, content: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packed, "write", full)
    store.save(2, STATE)
    with pytest.raises(CheckpointError):
        store.wait()
    store.restore(1, STATE)
    assert sorted(os.listdir(tmp_path)) == [".lock", "1"]


@pytest.mark.parametrize("reaction", ["save", "wait", "close"])
def test_a_failure_in_the_thread_is_raised_once_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaction: str
):
    write = packed.write

    def full(folder: Path, content: np.ndarray) -> None:
        monkeypatch.setattr(packed, "write", write)
        raise RuntimeError("layer of words") from OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(packed, "write", full)
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


def test_a_failure_is_heard_of_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, content: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed, "write", full)
    store = Store(tmp_path)
    store.check()
    store.save(1, STATE)
    assert store._written.wait(30)
    with pytest.raises(CheckpointError, match="No space left"):
        store.check()
    store.close()


def test_a_folder_that_cannot_be_made_is_named_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "checkpoints")
    with pytest.raises(CheckpointError, match="file/checkpoints/1 could not be saved"):
        store.save(1, STATE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path):
    tmp_path.chmod(0o500)
    store = Store(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="checkpoints/1 could not be saved: PermissionError"):
        store.save(1, STATE)


def test_an_error_in_the_body_is_not_hidden_by_one_in_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path, content: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed, "write", full)

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
    assert sorted(os.listdir(tmp_path)) == [".lock", "007", "1", "2", "notes.txt"]


def test_a_folder_that_does_not_exist_is_an_empty_store(tmp_path: Path):
    store = Store(tmp_path / "none")
    assert (store.steps(), store.latest(), store.best(), store.newest()) == ([], None, None, None)
    store.close()
    assert not (tmp_path / "none").exists()


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
    assert Store(tmp_path).steps() == [4]
    Store(tmp_path).verify(4)


def test_an_unread_failure_is_said_at_exit(tmp_path: Path):
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
    done = run(f"{full}store.save(1, {{'x': jnp.ones(1000)}})", tmp_path)
    assert "could not be saved" in done.stderr
    assert done.stderr.count("\n") == 1


def test_orbax_is_not_imported_for_a_state_on_one_device(tmp_path: Path):
    script = "store.save(1, {'x': jnp.ones(3)})\nstore.close()\nassert store.latest() == 1\n"
    done = run(f"{script}assert 'orbax' not in sys.modules", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_relative_folder_is_as_good_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with Store("runs/a") as store:
        store.save(1, {"w": jnp.ones(2)})
    assert Store(tmp_path / "runs/a").latest() == 1


def _interrupted(call: Callable[[], object]) -> None:
    """Called where the interruption is awaited: on a busy machine it may come before the call."""
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    call()


def test_a_wait_that_is_interrupted_does_not_lose_the_save(gate, tmp_path: Path):
    store = Store(tmp_path)
    store.save(1, STATE)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(store.wait)
    threading.Timer(0.3, gate.set).start()
    store.wait()
    assert store.steps() == [1]
    store.close()


def test_a_close_that_is_interrupted_lets_nobody_else_write(gate, tmp_path: Path):
    store = Store(tmp_path)
    store.save(1, STATE)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(store.close)
    with pytest.raises(Locked):
        Store(tmp_path).save(2, STATE)
    gate.set()
    store.close()
    assert store.steps() == [1]


def test_the_memory_for_a_copy_is_used_again_and_given_back_at_the_end(tmp_path: Path):
    store = Store(tmp_path)
    store.save(1, STATE)
    first = store._room
    store.save(2, {"x": STATE["x"] * 2.0})
    assert store._room is first
    store.save(3, {"x": jnp.arange(5.0)})
    assert store._room is not first
    store.close()
    assert store._room is None
    assert store.restore(2, STATE)[0]["x"].tolist() == [0, 2, 4, 6]
