"""A crash at any moment leaves a folder that opens, restores verified steps and takes new saves."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit.checkpoint import Keep, Store, publish

KEEP = Keep(latest=1, best=1)


def state(step: int, turn: int = 0) -> dict[str, Any]:
    return {"kernel": np.full((40, 30), float(step)), "turn": np.array(turn), "none": None}


def survives(image: Path) -> int | None:
    """Read every step of one image, then save into it; the image's newest step."""
    reader = Store(image)
    steps, latest, best = reader.steps(), reader.latest(), reader.best()
    for step in steps:
        found, meta = reader.restore(step, state(0))
        assert np.all(found["kernel"] == step)
        assert meta == {"step": step}
    with Store(image, KEEP) as writer:
        writer.save(10**6, state(10**6), meta={"step": 10**6})
    assert set(writer.steps()) == {10**6} | ({best} if best is not None else set())
    assert [name for name in os.listdir(image) if name.startswith(".")] == [".lock"]
    return latest


class Camera:
    """Copies the folder just before each rename and removal, and before every fourth sync."""

    def __init__(self, folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.images, self.shots = folder, images, list[tuple[str, Path]]()
        self.calls, self.on = 0, True
        images.mkdir()
        for module, name in [(os, "rename"), (os, "fsync"), (shutil, "rmtree")]:
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
    plan = [(10, 0.5), (20, None), (20, None), (30, 0.4)]
    newest: list[int | None] = []
    with monkeypatch.context() as patch:
        camera = Camera(tmp_path / "checkpoints", tmp_path / "images", patch)
        store = Store(tmp_path / "checkpoints", KEEP)
        for turn, (step, score) in enumerate(plan):
            store.save(step, state(step, turn), meta={"step": step}, score=score)
            store.wait()
        camera.on = False
        store.close()
    assert {name for name, _ in camera.shots} == {"rename", "fsync", "rmtree"}
    for _, image in camera.shots:
        newest.append(survives(image))
    # Once published, a step never goes away again before the next one is there.
    assert [step for step, _ in itertools.groupby(newest)] == [None, 10, 20, 30]


def test_a_step_being_replaced_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "checkpoints"
    store = Store(folder)
    store.save(7, state(7, 0), meta={"step": 7}, score=0.0)
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
        assert Store(image).latest() == 7
        publish.prepare(image)
        assert int(Store(image).restore(7, state(7))[0]["turn"]) == turns[-1]
        assert [name for name in os.listdir(image) if name.startswith(".")] == [".lock"]
    assert turns == sorted(turns)
    assert set(turns) == {0, 1}


def test_everything_is_on_disk_before_it_is_published_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "new" / "checkpoints"
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(handle: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def note_rename(source: Any, target: Any, **kwargs: Any) -> None:
        events.append(("rename", f"{source} {target}"))
        rename(source, target, **kwargs)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    with Store(folder) as store:
        store.save(5, state(5))
    published = next(i for i, (kind, _) in enumerate(events) if kind == "rename")
    temporary, target = events[published][1].split()
    assert target == str(folder / "5")
    synced = {path for _, path in events[:published]}
    content = {
        str(path).replace(str(folder / "5"), temporary) for path in (folder / "5").rglob("*")
    }
    assert len(content) == 2
    assert content | {temporary} <= synced
    assert {str(tmp_path), str(folder.parent)} <= synced, "the new folders' own names"
    assert events[published + 1 :] == [("fsync", str(folder))]
