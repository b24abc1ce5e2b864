"""The folder that a run leaves behind, and the two ways of asking a run to stop."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from functorch_kit import checkpoint, distributed, report
from functorch_kit.errors import UserError
from functorch_kit.report.records import strict

_FILES = (
    "config.yaml",
    "environment.json",
    "failure.json",
    "metrics.jsonl",
    "program.json",
    "replay.json",
    "report.html",
    "summary.json",
    "vocabulary.json",
)
_FOLDERS = ("checkpoints", "tensorboard")


class RunError(UserError, ValueError):
    """A run folder that cannot be used as asked; the message names it and the remedy."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, stopped after a whole step, and saved it.

    Attributes:
        signal: the number of the signal that asked.
        step: the step at which the run stands; None if it was asked twice, and stopped at once.
    """

    def __init__(self, signal_number: int, step: int | None = None):
        where = "at once" if step is None else f"at step {step}"
        super().__init__(f"stopped by {signal.Signals(signal_number).name} {where}")
        self.signal = signal_number
        self.step = step


class RunFolder:
    """Where a run writes: records, checkpoints and the report.

    Opening it only looks; ``begin`` makes the folder and removes what is to be overwritten, so that
    a run which cannot be compiled costs nobody the run before it.

    Args:
        path: the folder; made if missing.
        resume: go on with the run that is there.
        overwrite: replace the run that is there.
        keep: which checkpoints stay.
        team: the processes of the run, of which one writes; None for one process.

    Attributes:
        config: plain settings of the run, kept with each checkpoint.
        store: its checkpoints.
        team: the processes of the run.
        first: the step that the run goes on from; 0 for a new one.

    Raises:
        RunError: the folder holds a run and neither resume nor overwrite was asked for; it holds
            files of those names that no run wrote; or resume was asked for, and there is no folder.

    Example:
        >>> import tempfile
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> run.begin({"seed": 0})
        >>> read_config(run.path), run.first
        ({'seed': 0}, 0)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        keep: checkpoint.Keep | None = None,
        team: distributed.Team | None = None,
    ):
        self.path, self.team = Path(path), team or distributed.Team()
        self.store = checkpoint.Store(self.path / "checkpoints", keep, team=self.team)
        self.config: dict[str, Any] | None = None
        self._lock = checkpoint.Lock(self.path)
        self.first = 0
        if self.team.is_main:
            self._open(path, resume, overwrite)
        # The others hear of it when all is checked; if it is refused, they end with process 0.
        self.first = self.team.said(self.first)

    def _open(self, path: str | Path, resume: bool, overwrite: bool) -> None:
        self._overwrite = overwrite and not resume
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run folder {str(path)!r} is a file: choose another run_dir")
        if resume and not self.path.is_dir():
            raise RunError(f"run folder {str(path)!r} does not exist: there is nothing to resume")
        found = [name for name in _FILES if (self.path / name).exists()]
        found += [name for name in _FOLDERS if any((self.path / name).glob("*"))]
        if found and not (self.path / "environment.json").exists():
            raise RunError(
                f"run folder {str(path)!r} holds {found[0]}, and no run wrote it:"
                " choose another run_dir"
            )
        # Damaged ones are passed over, each with a line on standard error.
        self.first = (self.store.newest() or 0) if resume else 0
        self._seen = self.store.steps()
        if self.store.steps() and not (resume or overwrite):
            raise RunError(
                f"run folder {str(path)!r} holds a run: resume it, set overwrite=true, "
                "or choose another run_dir"
            )

    def begin(
        self,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        vocabulary: Any = None,
    ) -> None:
        """Make the folder, without the run that is to be overwritten, and say what runs in it.

        Args:
            config: plain settings, kept in ``config.yaml``.
            environment: see ``report.environment``, which is asked if this is None; many runs of
                one process need ask it but once.
            vocabulary: of a text; what its ``to_dict`` says is kept in ``vocabulary.json``.

        Raises:
            RunError: the folder cannot be made, cleared or written, or another process has written
                to it since it was opened; or a run would go on with another vocabulary.
            Locked: another process writes to it.
        """
        self.config = None if config is None else dict(config)
        if self.team.is_main:
            self._begin(environment, vocabulary)
        self.team.said(None)  # from here on there is a folder, in all processes

    def _begin(self, environment: Mapping[str, Any] | None, vocabulary: Any) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"run folder {str(self.path)!r} cannot be made: {error.strerror}"
            ) from error
        self._lock.acquire()
        if self.store.steps() != self._seen:
            raise RunError(
                f"run folder {str(self.path)!r} was written to by another process while this one"
                " started: start it again"
            )
        if self._overwrite:
            self._clear()
        words = vocabulary.to_dict() if hasattr(vocabulary, "to_dict") else None
        if self.first and words is not None and read_vocabulary(self.path) not in (None, words):
            raise RunError(
                f"the run in {str(self.path)!r} has another vocabulary: resume it with the text and"
                " the tokenizer that it began with"
            )
        try:
            # First: it marks the folder as a run's.
            self.write("environment", environment or report.environment())
            if self.config is not None:
                import yaml

                text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
                (self.path / "config.yaml").write_text(text, encoding="utf-8")
            if words is not None:
                self.write("vocabulary", words)
        except OSError as error:
            raise RunError(
                f"run folder {str(self.path)!r} cannot be written ({error.strerror}):"
                " choose another run_dir"
            ) from error

    def close(self) -> None:
        """Wait for a save under way, and let other processes write to the folder."""
        try:
            self.store.close()
        except checkpoint.CheckpointError:
            self._lock.release()
            raise
        self._lock.release()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``<name>.json``: whoever reads it sees the old file or the new one, whole."""
        if not self.team.is_main:
            return
        path = self.path / f"{name}.json"
        draft = path.with_suffix(".json.part")
        draft.write_text(json.dumps(strict(dict(value)), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    def passed(self, step: int) -> None:
        """Forget a step that failed once, where the run has come past it after all."""
        if not self.team.is_main:
            return
        path = self.path / "failure.json"
        try:
            failed = json.loads(path.read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, LookupError, TypeError):
            return  # there is none, or none that a run wrote
        if failed <= step:
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        try:
            for name in _FOLDERS:
                if (self.path / name).exists():
                    shutil.rmtree(self.path / name)
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"the run in {str(self.path)!r} cannot be removed ({error.strerror or error}):"
                " remove it by hand, or choose another run_dir"
            ) from error


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings of the run in a folder.

    Raises:
        RunError: no such folder, or no readable ``config.yaml`` in it.

    Example:
        >>> try:
        ...     read_config("runs/no-such-run")
        ... except RunError as error:
        ...     print(error)
        run folder 'runs/no-such-run' does not exist: give the folder of a run
    """
    import yaml

    path = Path(path)
    if not path.is_dir():
        raise RunError(f"run folder {str(path)!r} does not exist: give the folder of a run")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{str(path)!r} is not a run folder: it has no config.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        cause = str(error).splitlines()[0]
        raise RunError(f"{str(path / 'config.yaml')!r} cannot be read: {cause}") from error
    if not isinstance(config, dict):
        raise RunError(f"{str(path / 'config.yaml')!r} is not a run's configuration")
    return config


def read_vocabulary(path: str | Path) -> dict[str, Any] | None:
    """What the run in a folder keeps of its vocabulary; None if it keeps nothing.

    Raises:
        RunError: a ``vocabulary.json`` that cannot be read.

    Example:
        >>> import tempfile
        >>> from functorch_kit.data import Characters
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> run.begin(vocabulary=Characters("ab"))
        >>> read_vocabulary(run.path)
        {'kind': 'characters', 'characters': 'ab'}
    """
    file = Path(path) / "vocabulary.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{str(file)!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise RunError(f"{str(file)!r} is not what a run keeps of its vocabulary")
    return values


@contextmanager
def interruptible() -> Iterator[list[Any]]:
    """Turn SIGINT and SIGTERM into a request to stop after a whole step.

    Yields:
        A list that is empty until a signal comes, then holds its number; others may put their own
        reasons to stop into it. A second signal stops at once. Outside the main thread, where
        Python allows no handlers, nothing is changed.

    Example:
        >>> with interruptible() as requests:
        ...     requests
        []
    """
    requests: list[Any] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if any(isinstance(each, int) for each in requests):
            raise Interrupted(number)
        requests.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
