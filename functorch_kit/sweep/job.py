"""A job of a sweep: which run it is, where it is written, and what has come of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functorch_kit.loop import FitResult
from functorch_kit.report import read_metrics
from functorch_kit.sweep.asked import Asked
from functorch_kit.sweep.identity import known_jobs

PRUNED = "pruned"
"""How a job ends that successive halving has ended."""
DONE = ("finished", "stopped early", PRUNED, "diverged")
"""How a job ends for good: started again, it would end the same way."""


@dataclasses.dataclass
class Job:
    """One of a sweep's runs.

    Attributes:
        number: its place in the sweep.
        asked: what it was asked for.
        identity: see ``identity``; empty where nothing is written.
        folder: its run folder, or None.
        status: ``waiting``, or how its run ended.
        summary: what stands in its ``summary.json``.
        result: what ``fit`` would have returned, where this sweep brought it to an end.

    Example:
        >>> from functorch_kit.config import Config
        >>> from functorch_kit.sweep.asked import asked
        >>> Job(0, asked(Config())).status
        'waiting'
    """

    number: int
    asked: Asked
    identity: str = ""
    folder: Path | None = None
    status: str = "waiting"
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    result: FitResult | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to run."""
        return self.status in DONE

    def rows(self) -> list[dict[str, Any]]:
        """Its logged rows."""
        if self.result:
            return self.result.history
        path = self.folder and self.folder / "metrics.jsonl"
        return read_metrics(path) if path and path.exists() else []

    def read(self) -> None:
        """See what the run folder says."""
        path = self.folder and self.folder / "summary.json"
        if path is None or not path.exists():
            return
        try:
            self.summary = json.loads(path.read_text(encoding="utf-8"))
            self.status = str(self.summary["status"])
        except (OSError, ValueError, LookupError, TypeError):
            self.summary, self.status = {}, "waiting"


def placed(jobs: Sequence[Asked], identities: Sequence[str], folder: Path | None) -> list[Job]:
    """The jobs with their run folders: those that are there already, and new ones by number.

    Args:
        jobs: what they were asked for.
        identities: likewise.
        folder: of the sweep.

    Example:
        >>> from functorch_kit.config import Config
        >>> from functorch_kit.sweep.asked import asked
        >>> jobs = [asked(Config()), asked(Config(seed=1))]
        >>> placed(jobs, ["a", "b"], Path("no/such/folder"))[1].folder.name
        '1'
    """
    if folder is None:
        return [Job(number, job) for number, job in enumerate(jobs)]
    known = known_jobs(folder)
    taken = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    found = []
    for number, (job, name) in enumerate(zip(jobs, identities, strict=True)):
        if name not in known:
            free = number
            while str(free) in taken:
                free += 1
            taken.add(str(free))
            known[name] = folder / str(free)
        found.append(Job(number, job, name, known[name]))
        found[-1].read()
    return found
