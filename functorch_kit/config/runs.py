"""Run folders and the configurations in them."""

from __future__ import annotations

import copy
import dataclasses
import datetime
from collections.abc import Collection
from pathlib import Path
from typing import Any

from functorch_kit.config.convert import from_dict, to_dict
from functorch_kit.config.errors import ConfigError, listed
from functorch_kit.config.schedules import schedule_steps
from functorch_kit.config.schema import Config, choice_of

RESUMABLE = (
    "train.steps",
    "train.schedule_steps",
    "train.max_seconds",
    "train.eval_every",
    "train.checkpoint_every",
    "train.log_every",
    "train.keep_latest",
    "train.keep_best",
    "train.keep_every",
    "mesh.data",
    "mesh.fsdp",
    "mesh.sequence",
    "mesh.tensor",
    "quiet",
)
"""What may change when a run goes on: how far and what is seen of it, not what is computed."""


def load_run(run_dir: str | Path) -> Config:
    """The configuration of the run in a folder; ``run_dir`` is that folder, wherever it is now.

    Raises:
        UserError: no such folder, no configuration in it, or one that does not fit the schema.

    Example:
        >>> from functorch_kit.errors import UserError
        >>> try:
        ...     load_run("runs/no-such-run")
        ... except UserError as error:
        ...     print(error)
        run folder 'runs/no-such-run' does not exist: give the folder of a run
    """
    if not Path(run_dir).is_dir():  # said at once, without loading what reads runs
        raise ConfigError(f"run folder {str(run_dir)!r} does not exist: give the folder of a run")
    from functorch_kit.run import read_config

    values = read_config(run_dir)
    try:
        config = from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{str(Path(run_dir) / 'config.yaml')!r}: {error}") from error
    return dataclasses.replace(config, run_dir=str(run_dir))


def saved(config: Config) -> dict[str, Any]:
    """What a run keeps in ``config.yaml``: all but where it is and the orders of the moment.

    A schedule with an end keeps its number of steps: with other ``train.steps``, a run that goes on
    follows the schedule it began.

    Example:
        >>> "overwrite" in to_dict(Config()), "overwrite" in saved(Config())
        (True, False)
    """
    values = to_dict(config)
    values["train"]["schedule_steps"] = schedule_steps(config)
    for order in ("run_dir", "resume", "overwrite", "quiet"):
        values.pop(order, None)
    return values


def resumed(config: Config, given: Collection[str]) -> Config:
    """The configuration of the run that ``config.resume`` names, with what may change.

    Args:
        config: as it was composed, with ``resume``.
        given: the names that were given on the command line, groups among them.

    Raises:
        UserError: the folder holds no run, or a name is given that a run cannot change.

    Example:
        >>> resumed(Config(resume="runs/a", seed=3), ["resume", "seed"])
        Traceback (most recent call last):
        functorch_kit...ConfigError: seed cannot change when a run is resumed: only train.steps,
        train.schedule_steps, train.max_seconds, train.eval_every, train.checkpoint_every,
        train.log_every, train.keep_latest, train.keep_best, train.keep_every, mesh.data, mesh.fsdp,
        mesh.sequence, mesh.tensor or quiet can
    """
    for name in given:
        if name not in (*RESUMABLE, "resume"):
            raise ConfigError(
                f"{name} cannot change when a run is resumed: only {listed(RESUMABLE)} can"
            )
    assert config.resume is not None
    run = copy.deepcopy(load_run(config.resume))
    for name in given:
        group, _, key = name.rpartition(".")
        if name != "resume":
            setattr(getattr(run, group) if group else run, key, _value(config, name))
    return dataclasses.replace(from_dict(to_dict(run)), resume=config.resume)


def new_run_dir(config: Config, parent: str | Path = "runs", prefix: str = "") -> Path:
    """Make a folder for a new run, named after its data, its model and the time.

    Raises:
        ConfigError: it cannot be made.

    Example:
        >>> import tempfile
        >>> parent = tempfile.mkdtemp()
        >>> first, second = (new_run_dir(Config(), parent) for _ in range(2))
        >>> first.name[:10], first != second, second.is_dir()
        ('digits-cnn', True, True)
    """
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{prefix}{choice_of(config.data)}-{choice_of(config.model)}-{time}"
    number = 1
    while True:
        folder = Path(parent) / (name if number == 1 else f"{name}-{number}")
        try:
            # Making the folder is what takes the name: two runs of one second cannot both.
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConfigError(
                f"run folder {str(folder)!r} cannot be made ({error.strerror}):"
                " give run_dir=<folder>"
            ) from error


def _value(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
