"""From a command line to a checked configuration: what every script here shares.

A script calls ``run(task, schema, config_name)``. Its overrides are checked one by one before Hydra
composes them, and the composed configuration is checked against the schema again; both take well
under a second, because JAX is not imported before ``task`` runs. What a user got wrong ends in one
line on standard error. Exit codes:

    0    done
    1    an exception that nobody foresaw, with its traceback
    2    refused: a setting, a file or a folder that cannot be used
    3    training failed: a NaN or an infinity (``replay.py`` looks into it); in a multirun, where
         the other jobs go on, of at least one job
    4    ``verify_resume.py``: a resumed run differs
    130  stopped by SIGINT; a run in training has finished its step and saved it
    143  stopped by SIGTERM; likewise
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from stopping import is_script, stop_at_once

if is_script(__file__):  # and not, say, in the process of a test
    stop_at_once()
for needed in ("functorch_kit", "jax", "hydra"):
    if importlib.util.find_spec(needed) is None:
        remedy = "pip install -e '.[experiments]' in the folder of pyproject.toml"
        print(f"error: {needed} is not installed: {remedy}", file=sys.stderr)
        sys.exit(2)

from command_line import check_overrides, read_arguments  # noqa: E402

from functorch_kit.config import (  # noqa: E402
    GROUPS,
    ConfigError,
    describe,
    from_dict,
    to_dict,
    unknown,
)
from functorch_kit.errors import UserError  # noqa: E402

HERE = Path(__file__).parent
CONF = HERE / "conf"


class Job(NamedTuple):
    """What a script is told besides its configuration."""

    given: tuple[str, ...]
    """Names that the command line set, groups among them."""
    folder: Path | None
    """In a multirun, the job's own folder."""


class Jobs(NamedTuple):
    """What a script is told of the jobs of a multirun that a launcher hands over all at once."""

    given: tuple[str, ...]
    """Names that the command line set, groups among them."""
    folder: Path
    """The multirun's own folder, for those of the jobs."""
    options: Mapping[str, Any]
    """The launcher's settings."""


class Answer(NamedTuple):
    """What has come of one of these jobs."""

    value: float | None
    """What it is judged by, for sweepers that go by it; NaN where training failed."""
    is_failed: bool = False
    """Whether training failed."""


class TrainingFailed(UserError):
    """Some jobs of a multirun came to a NaN or an infinity; the others are done."""

    exit_code = 3


def run(
    task: Callable[[Any, Job], float | None],
    schema: type,
    config_name: str = "config",
    unused: Sequence[str] = (),
    together: Callable[[Sequence[Any], Jobs], Sequence[Answer]] | None = None,
) -> NoReturn:
    """Run ``task(config, job)`` for the configuration, or each configuration, asked for.

    Args:
        task: what the script does; it may return what a job is judged by.
        schema: dataclass of its configuration.
        config_name: the file in conf/ that it is composed from.
        unused: settings of the schema that mean nothing to the script, refused when given.
        together: ``together(configs, jobs)`` does all jobs of a multirun at once, where the
            launcher asks for that.
    """
    try:
        _run(_Work(task, schema, together), config_name, unused)
    except UserError as error:
        _refuse(error)
    except KeyboardInterrupt as error:
        # `fit` says by which signal it was stopped, and where; the shell expects 128 + its number.
        print(str(error) or "stopped", file=sys.stderr)
        sys.exit(128 + getattr(error, "signal", signal.SIGINT))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    sys.exit(0)


class _Work:
    """What Hydra calls for each job, and the launcher ``lanes`` for all of them at once.

    A launcher may send it to another process, which calls the copy that it is given.
    """

    def __init__(self, task: Callable, schema: type, together: Callable | None):
        self.schema = schema
        self.given: tuple[str, ...] = ()
        self.has_started = False
        self.failed: list[int] = []
        self._task, self._together = task, together
        self._configs: dict[int, Any] = {}
        self._process = os.getpid()

    @property
    def takes_all(self) -> bool:
        """Whether it can do the jobs of a multirun all at once."""
        return self._together is not None

    def __call__(self, composed: Any) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        told = HydraConfig.get()
        several = told.mode is not None and told.mode.name == "MULTIRUN"
        try:
            config = self.read(composed)
            self.has_started = True
            folder = Path(told.runtime.output_dir) if several else None
            return self._task(config, Job(self.given, folder))
        except UserError as error:
            if os.getpid() != self._process:
                raise _portable(error) from None
            if several and error.exit_code == TrainingFailed.exit_code:
                _say(UserError(f"job {told.job.num}: {error}"))
                self.failed.append(told.job.num)
                return float("nan")
            _refuse(error)  # here, because Hydra would add a line of its own

    def read(self, composed: Any) -> Any:
        """A configuration as composed, checked against the schema."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_sentence(error, self.schema)) from error
        return from_dict(values, self.schema)

    def together(
        self, configs: Mapping[int, Any], folder: Path, options: Mapping[str, Any]
    ) -> list[float | None]:
        """Some jobs of a multirun at once, beside those that came before them.

        Args:
            configs: what ``read`` returned, by the jobs' numbers.
            folder: of the multirun.
            options: of the launcher.

        Returns:
            What each of them is judged by.

        Raises:
            UserError: this script takes its jobs one by one, or a configuration cannot be used.
        """
        if self._together is None:
            script = Path(sys.argv[0]).name
            raise ConfigError(f"hydra/launcher=lanes is for train.py: leave it out of {script}")
        self.has_started = True
        # A sweeper may ask for more when it has seen some; table and page are of all of them.
        self._configs |= configs
        answers = self._together([*self._configs.values()], Jobs(self.given, folder, options))
        found = dict(zip(self._configs, answers, strict=True))
        self.failed = [number for number, answer in found.items() if answer.is_failed]
        return [found[number].value for number in configs]


def _run(work: _Work, config_name: str, unused: Sequence[str]) -> None:
    arguments = read_arguments(sys.argv[1:])
    if arguments.help:
        print(f"{sys.modules['__main__'].__doc__}\n{describe(work.schema)}", flush=True)
        if work.takes_all:
            from hydra_plugins.lanes import Lanes

            print(f"\nhydra/launcher=lanes\n{describe(Lanes, 'hydra.launcher.')}", flush=True)
        return
    experiments = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    checked = check_overrides(arguments, work.schema, experiments, unused)
    options = [word for word in sys.argv[1:] if word not in arguments.overrides]
    sys.argv[1:] = [*options, *checked.overrides]
    work.given = checked.names

    # Hydra prints errors its own way, over several lines, unless it is told to raise them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if checked.several:
        # Where a launcher's processes find the modules beside the scripts, and plugins of Hydra.
        path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, path)])
    import hydra

    _register(work.schema)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(work)()
    except UserError:
        raise
    except Exception as error:
        if work.has_started:
            raise
        raise ConfigError(_sentence(error, work.schema)) from error
    if work.failed:
        which = ", ".join(map(str, work.failed))
        raise TrainingFailed(
            f"training failed in {'job' if len(work.failed) == 1 else 'jobs'} {which}: replay.py"
            " looks into a run folder; train.nonfinite=skip goes on without such steps"
        )


def _register(schema: type) -> None:
    """Put the schema's defaults where the defaults list finds them.

    They are plain values: Hydra's own check of types speaks in several lines, and it can be got
    around with ``+``, so `from_dict` checks everything, whatever way it came.
    """
    from hydra.core.config_store import ConfigStore

    store, defaults = ConfigStore.instance(), to_dict(schema())
    store.store(
        name="settings", node={key: value for key, value in defaults.items() if key not in GROUPS}
    )
    for group in GROUPS:
        if group not in defaults:
            store.repo.pop(group, None)  # of another script that this process ran before
            continue
        for name, option in GROUPS[group].items():
            chosen = {"name": name} if len(GROUPS[group]) > 1 else {}
            store.store(group=group, name=name, node={**chosen, **to_dict(option())})


def _sentence(error: Exception, schema: type) -> str:
    """One line for an error in composing, of whatever kind."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("Could not override '"):
        return str(unknown(text.split("'")[1], schema))
    text = text.split(" full_key:")[0].rstrip(". ")
    return text if len(text) <= 300 else f"{text[:299]}…"


def _portable(error: UserError) -> UserError:
    """An error that can be sent to another process, whatever its own arguments are."""
    told = UserError(str(error))
    told.exit_code = error.exit_code
    return told


def _say(error: UserError) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def _refuse(error: UserError) -> NoReturn:
    _say(error)
    sys.exit(error.exit_code)
