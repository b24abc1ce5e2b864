"""One writer; the other is told who it is; a dead one is in nobody's way."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from functorch_kit.checkpoint import CheckpointError, Lock, Locked, Store
from functorch_kit.errors import UserError

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from functorch_kit.checkpoint.lock import Lock
lock = Lock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_loser_is_told_the_process_its_host_and_since_when(
    tmp_path: Path, holder: subprocess.Popen[str]
):
    with pytest.raises(Locked) as caught:
        Lock(tmp_path).acquire()
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert f"{tmp_path} is written to by process {holder.pid} on {os.uname().nodename}" in message
    assert re.search(r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", message)
    assert "\n" not in message


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]):
    lock = Lock(tmp_path)
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(Locked):
        lock.acquire()
    holder.kill()
    holder.wait()
    lock.acquire()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    lock.release()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_store_that_another_process_writes_to_is_read_but_not_written(
    tmp_path: Path, holder: subprocess.Popen[str]
):
    store = Store(tmp_path)
    assert store.latest() is None
    with pytest.raises(Locked, match=f"process {holder.pid}"):
        store.save(1, {"x": jnp.ones(1)})
    assert os.listdir(tmp_path) == [".lock"]


def test_two_stores_in_one_process_cannot_both_write_until_one_is_closed(tmp_path: Path):
    first, second = Store(tmp_path), Store(tmp_path)
    first.save(1, {"x": jnp.ones(1)})
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        second.save(2, {"x": jnp.ones(1)})
    first.close()
    second.save(2, {"x": jnp.ones(1)})
    second.close()
    assert second.steps() == [1, 2]


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path):
    """A data worker that outlives a killed run would else lock the folder for good."""
    script = f"""
import os, sys, time
from functorch_kit.checkpoint.lock import Lock
lock = Lock({str(tmp_path)!r})
lock.acquire()
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.write(go, b".")
    time.sleep(60)
os.read(ready, 1)
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as said:  # not to its end: the child holds it open
        child = int(said.readline())
    try:
        assert parent.wait() == -signal.SIGKILL
        with Lock(tmp_path) as lock:
            assert lock.held
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_is_released_with_its_block_even_after_an_error(tmp_path: Path):
    lock = Lock(tmp_path)
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert not lock.held
    with Lock(tmp_path), pytest.raises(Locked):
        lock.acquire()


def test_a_holder_that_has_not_said_its_name_is_another_process(tmp_path: Path):
    with Lock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(Locked, match="written to by another process"):
            Lock(tmp_path).acquire()


def test_a_folder_without_a_place_for_the_lock_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/\.lock cannot be made"):
        Lock(tmp_path / "file").acquire()


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def none(handle: int, what: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with Lock(tmp_path):
        assert "on a file system without locks" in capsys.readouterr().err
