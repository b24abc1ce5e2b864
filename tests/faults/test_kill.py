"""F1: killed with -9 at any moment and started again, a run ends as if nothing had been."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from functorch_kit.checkpoint import Store

STEPS, INTERVAL = 200, 10  # of training.py


class Killing:
    """Kills runs, starts them again, and checks what is left each time and at the end."""

    def __init__(self, folder: Path, launch, undisturbed, seed: int) -> None:
        self.folder, self.launch, self.undisturbed = folder, launch, undisturbed
        self.random = random.Random(seed)
        self.runs = self.kills = self.inside = 0
        folder.mkdir(exist_ok=True)

    @property
    def run(self) -> Path:
        return self.folder / f"run-{self.runs}"

    def kill_once(self, how: str) -> None:
        """Start or resume the run, and kill it; if it comes to its end first, check that."""
        progress = self.folder / "progress"
        progress.unlink(missing_ok=True)
        process = self.launch(self.run, "--progress", progress)
        getattr(self, f"_{how}")(process)
        if process.poll() is None:
            process.kill()
            process.communicate()
            self.kills += 1
            self._check_what_is_left(progress)
        else:
            self._check_end(process)

    def finish(self) -> None:
        """Let the run come to its end, and check that."""
        self._check_end(self.launch(self.run))

    def _anywhere(self, process) -> None:
        process_ends = time.monotonic() + self.random.uniform(0, self.undisturbed.seconds)
        while process.poll() is None and time.monotonic() < process_ends:
            time.sleep(0.001)

    def _training(self, process) -> None:
        self._saves_seen(process, 1)
        time.sleep(self.random.uniform(0, 0.2))

    def _saving(self, process) -> None:
        self._saves_seen(process, self.random.randint(1, 8))
        time.sleep(self.random.choice([0, 0.0005, 0.001, 0.002, 0.003]))

    def _saves_seen(self, process, count: int) -> None:
        """Wait for the beginning of the so many-eth save of this process."""
        seen: set[str] = set()
        folder, mine = self.run / "checkpoints", f"-{process.pid}-"
        while process.poll() is None:
            names = os.listdir(folder) if folder.is_dir() else []
            seen.update(name for name in names if name.startswith(".tmp-") and mine in name)
            if len(seen) >= count:
                return

    def _check_what_is_left(self, progress: Path) -> None:
        folder = self.run / "checkpoints"
        names = os.listdir(folder) if folder.is_dir() else []
        self.inside += any(name.startswith((".tmp-", ".old-")) for name in names)
        damaged: list[str] = []
        newest = Store(folder).newest(damaged.append)
        assert damaged == []
        if progress.exists() and (said := progress.read_text()):
            # Its save had returned, so the one before it was on the disk.
            assert (newest or 0) >= int(said) - INTERVAL

    def _check_end(self, process) -> None:
        out, err = process.communicate(timeout=300)
        assert out.strip() == self.undisturbed.hash, err
        rows = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows if row["split"] == "train"]
        assert steps == list(range(1, STEPS + 1))
        self.runs += 1


def test_a_run_killed_six_times_equals_one_that_never_was(tmp_path: Path, launch, undisturbed):
    killing = Killing(tmp_path, launch, undisturbed, seed=0)
    for how in ("training", "saving", "anywhere", "saving", "training", "saving"):
        killing.kill_once(how)
    killing.finish()
    assert killing.kills >= 4


@pytest.mark.soak
def test_three_hundred_kills_a_hundred_of_them_inside_saves(
    tmp_path: Path, launch, undisturbed, table
):
    with table.row("F1", "kill -9, a third of them inside a save; started again") as row:
        killing = Killing(tmp_path, launch, undisturbed, seed=1)
        while killing.kills < 300 or killing.inside < 100:
            wanted = "saving" if killing.inside < 100 else "anywhere"
            for how in (wanted, "training", wanted):
                killing.kill_once(how)
            row.count = killing.kills
        killing.finish()
        row.result = (
            f"{killing.runs} of {killing.runs} runs end with the hash of an undisturbed one, every"
            f" step once in the log; {killing.inside} kills inside a save; no save lost whose next"
            " one had returned"
        )
