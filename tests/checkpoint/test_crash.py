"""A crash at any moment leaves a folder that opens, restores verified steps and takes new saves."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit.checkpoint import Store, publish


def state(step: int, turn: int = 0) -> dict[str, Any]:
    return {"kernel": np.full((40, 30), float(step)), "turn": np.array(turn), "none": None}


def survives(image: Path) -> int | None:
    """Read every step of one image, then save into it; the image's newest step."""
    reader = Store(image)
    marks = reader.marks()
    assert set(marks.values()) <= set(reader.steps())
    for step in reader.steps():
        found, meta = reader.restore(step, state(0))
        assert np.all(found["kernel"] == step)
        assert meta == {"step": step}
    with Store(image) as writer:
        writer.save(10**6, state(10**6), meta={"step": 10**6})
    assert set(writer.steps()) == {10**6, *(marks[name] for name in marks if name != "latest")}
    assert not [name for name in os.listdir(image) if name.startswith(".")]
    return marks.get("latest")


class Camera:
    """Copies the folder just before each rename and removal, and before every fourth sync."""

    def __init__(self, folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.images, self.shots = folder, images, list[tuple[str, Path]]()
        self.calls, self.on = 0, True
        images.mkdir()
        for module, name in [(os, "rename"), (os, "replace"), (os, "fsync"), (shutil, "rmtree")]:
            monkeypatch.setattr(module, name, self.around(name, getattr(module, name)))

    def around(self, name: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.on and self.folder.exists() and (name != "fsync" or self.calls % 4 == 0):
                self.on = False
                image = self.images / f"{len(self.shots)}"
                self.shots.append((name, Path(shutil.copytree(self.folder, image))))
                self.on = True
            return original(*args, **kwargs)

        return call


def test_an_image_taken_before_any_system_call_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = [(10, True), (20, False), (20, False), (30, True)]
    newest: list[int | None] = []
    with monkeypatch.context() as patch:
        camera = Camera(tmp_path / "checkpoints", tmp_path / "images", patch)
        store = Store(tmp_path / "checkpoints")
        for turn, (step, best) in enumerate(plan):
            store.save(step, state(step, turn), meta={"step": step}, best=best)
            store.wait()
        camera.on = False
        store.close()
    assert {name for name, _ in camera.shots} == {"rename", "replace", "fsync", "rmtree"}
    for _, image in camera.shots:
        newest.append(survives(image))
    # Once published, a step never goes away again before the next one is there.
    assert [step for step, _ in itertools.groupby(newest)] == [None, 10, 20, 30]


def test_a_step_being_replaced_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "checkpoints"
    store = Store(folder)
    store.save(7, state(7, 0), meta={"step": 7}, best=True)
    store.wait()
    with monkeypatch.context() as patch:
        camera = Camera(folder, tmp_path / "images", patch)
        store.save(7, state(7, 1), meta={"step": 7})
        store.close()
        camera.on = False
    turns: list[int] = []
    for _, image in camera.shots:
        found, _ = Store(image).restore(7, state(7))
        turns.append(int(found["turn"]))
        assert Store(image).marks() == {"latest": 7, "best": 7}
        publish.prepare(image)
        assert int(Store(image).restore(7, state(7))[0]["turn"]) == turns[-1]
        assert not [name for name in os.listdir(image) if name.startswith(".")]
    assert turns == sorted(turns)
    assert set(turns) == {0, 1}


def test_everything_is_on_disk_before_it_is_published_and_its_name_before_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "new" / "checkpoints"
    events: list[tuple[str, str]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def note_fsync(handle: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def note_rename(source: Any, target: Any, **kwargs: Any) -> None:
        events.append(("rename", f"{source} {target}"))
        (rename if "marks" not in str(target) else replace)(source, target, **kwargs)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(os, "replace", note_rename)
    with Store(folder) as store:
        store.save(5, state(5))
    ours = [e for e in events if e[0] == "fsync" or e[1].startswith(str(folder / ".tmp"))]
    published = next(
        i for i, e in enumerate(ours) if e[0] == "rename" and e[1].endswith(str(folder / "5"))
    )
    temporary = ours[published][1].split()[0]
    synced = {path for kind, path in ours[:published] if kind == "fsync"}
    content = {
        str(path).replace(str(folder / "5"), temporary) for path in (folder / "5").rglob("*")
    }
    assert content | {temporary} <= synced
    assert str(folder.parent) in synced, "the folder's own name"
    after = ours[published + 1 :]
    assert after[0] == ("fsync", str(folder))
    assert after[1][1].startswith(str(folder / ".tmp-marks"))
    assert after[2][0] == "rename"
    assert after[2][1].endswith("marks.json")
    assert after[3] == ("fsync", str(folder))


WRITER = """
import itertools, sys
import numpy as np
from functorch_kit.checkpoint import Store
store = Store(sys.argv[1])
for step in itertools.count(1):
    state = {"kernel": np.full((40, 30), float(step)), "turn": np.array(0), "none": None}
    store.save(step, state, meta={"step": step}, best=step % 3 == 0)
    if step == 1:
        store.wait()
        print("ready", flush=True)
"""


def images_of_a_busy_writer(tmp_path: Path, count: int) -> int:
    folder = tmp_path / "checkpoints"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", WRITER, str(folder)]
    writer = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    rng = np.random.default_rng(0)
    newest = 0
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for index in range(count):
            time.sleep(rng.uniform(0, 0.06))
            assert writer.poll() is None
            writer.send_signal(signal.SIGSTOP)
            # The signal is only asked for: wait until every thread of the writer stands still.
            os.waitpid(writer.pid, os.WUNTRACED)
            image = Path(shutil.copytree(folder, tmp_path / f"image-{index}"))
            writer.send_signal(signal.SIGCONT)
            latest = survives(image)
            assert latest is not None
            assert latest >= newest
            newest = latest
            shutil.rmtree(image)
        writer.kill()
    finally:
        writer.kill()
        writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()
    survives(folder)
    return newest


def test_an_image_of_a_busy_writer_at_any_moment_survives(tmp_path: Path):
    assert images_of_a_busy_writer(tmp_path, 20) > 5


@pytest.mark.soak
def test_five_hundred_images_of_a_busy_writer_survive(tmp_path: Path):
    assert images_of_a_busy_writer(tmp_path, 500) > 100
