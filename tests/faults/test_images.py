"""F2: what a disk holds at any moment of a busy writer is a folder that goes on."""

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

from functorch_kit.checkpoint import Keep, Store

WRITER = """
import itertools, sys
import numpy as np
from functorch_kit.checkpoint import Keep, Store
store = Store(sys.argv[1], Keep(latest=2, best=1, every=500))
for step in itertools.count(1):
    state = {"kernel": np.full((40, 30), float(step)), "none": None}
    score = 1 / step if step % 3 == 0 else None
    # Now and then a step is written a second time.
    store.save(step - step % 7 // 6, state, meta={"step": step}, score=score)
    if step == 1:
        store.wait()
        print("ready", flush=True)
"""


def state(value: float) -> dict[str, Any]:
    return {"kernel": np.full((40, 30), value), "none": None}


def survives(image: Path) -> int:
    """Read every step of one image, then save into it; the image's newest step."""
    reader = Store(image)
    damaged: list[str] = []
    newest = reader.newest(damaged.append)
    assert damaged == []
    assert newest is not None
    for step in reader.steps():
        found, meta = reader.restore(step, state(0.0))
        assert np.all(found["kernel"] == meta["step"])
        assert meta["step"] - step in (0, 1)
    with Store(image, Keep(latest=1, best=0)) as writer:
        writer.save(10**6, state(1.0), meta={"step": 10**6})
    assert sorted(os.listdir(image)) == [".lock", str(10**6)]
    return newest


def images(tmp_path: Path, count: int) -> tuple[int, int]:
    """Take so many images of a writer; how many were taken inside a save, and the last step."""
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(folder)]
    writer = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    rng = np.random.default_rng(0)
    newest = inside = 0
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for index in range(count):
            time.sleep(rng.uniform(0, 0.03))
            assert writer.poll() is None
            writer.send_signal(signal.SIGSTOP)
            # The signal is only asked for: wait until every thread of the writer stands still.
            os.waitpid(writer.pid, os.WUNTRACED)
            image = Path(shutil.copytree(folder, tmp_path / f"image-{index}"))
            writer.send_signal(signal.SIGCONT)
            inside += any(name.startswith((".tmp-", ".old-")) for name in os.listdir(image))
            latest = survives(image)
            assert latest >= newest
            newest = latest
            shutil.rmtree(image)
    finally:
        writer.kill()
        writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()
    survives(folder)
    return inside, newest


def test_an_image_of_a_busy_writer_at_any_moment_survives(tmp_path: Path):
    inside, newest = images(tmp_path, 15)
    assert inside > 3
    assert newest > 5


@pytest.mark.soak
def test_five_hundred_images_of_a_busy_writer_survive(tmp_path: Path, table):
    with table.row("F2", "writer stopped every few ms, its folder copied, the copy gone on") as row:
        row.count = 500
        inside, newest = images(tmp_path, row.count)
        row.result = (
            f"every copy restores all its steps and takes the next save; {inside} inside a save,"
            f" {newest} steps written meanwhile"
        )
