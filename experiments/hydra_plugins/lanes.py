"""``hydra/launcher=lanes``: the jobs of a multirun all at once.

Jobs that differ in numbers only become lanes of one compiled program, where that pays, and share a
compiled program where it does not. Each is composed and checked like a job of any other launcher,
and leaves the same run folder. Hydra looks for plugins in a package of this name, without an
``__init__``, beside the script that runs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from composing import SweepLoader
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from functorch_kit.config import ConfigError, from_dict, setting

NAME = "hydra.launcher"


@dataclasses.dataclass
class Lanes:
    """Settings of the launcher, ``hydra.launcher.mode`` and so on; see ``sweep.run``."""

    mode: str = setting(
        "auto",
        "side by side in one program, or one after another through it; auto asks the backend",
        choices=("auto", "lanes", "one_by_one"),
    )
    memory: float | None = setting(
        None, "GiB that a program may take on a device; null: what is free", above=0, most=1e6
    )
    devices: int | None = setting(
        None, "devices to split the lanes over, on a CPU made as asked; null: all", least=1, most=64
    )
    compact: bool = setting(False, "whether to compile again when half of the lanes have ended")
    halving_first: int | None = setting(
        None, "step at which successive halving ends most jobs; null: none", least=1, most=2**31 - 1
    )
    halving_factor: int = setting(
        3, "one in so many goes on from there, and so many times as far", least=2, most=1000
    )


class _Composed(NamedTuple):
    number: int
    composed: DictConfig
    """With Hydra's own part."""
    hydra: Any
    """That part alone."""
    task: DictConfig
    """Without."""
    config: Any
    """As the script reads it."""


class LanesLauncher(Launcher):
    """What Hydra calls with a whole batch of overrides."""

    def __init__(self, **options: Any):
        self._options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and check the settings, of which Hydra knows no limits."""
        # The frame's: it knows how to read a configuration, and how to do many jobs at once.
        self._work: Any = task_function
        self._context, self._config = hydra_context, config
        # The sweeper's as well: it composes every job once to see whether that can be done.
        loader: Any = SweepLoader(hydra_context.config_loader)
        hydra_context.config_loader = loader
        try:
            self._options = dataclasses.asdict(from_dict(self._options, Lanes))
        except ConfigError as error:
            raise ConfigError(f"{NAME}.{error}") from error
        sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        assert isinstance(sweep, dict)
        job = config.hydra.job
        for name, is_set, why in (
            ("sweep.subdir", sweep["subdir"] != "${hydra.job.num}", "jobs go by number"),
            ("job.env_set", bool(job.env_set), "all jobs are one process"),
            ("job.chdir", bool(job.chdir), "all jobs are one process"),
        ):
            if is_set:
                raise ConfigError(f"hydra.{name} means nothing to hydra/launcher=lanes: {why}")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do all of these jobs; a sweeper may ask for more when it has seen what they return."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        self._folder = Path(str(self._config.hydra.sweep.dir))
        before = HydraConfig.instance().cfg
        try:
            jobs = [
                self._composed(number, list(overrides))
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
        finally:
            HydraConfig.instance().cfg = before
        values = self._work.together(
            {job.number: job.config for job in jobs}, self._folder, self._options
        )
        returns = []
        for job, value in zip(jobs, values, strict=True):
            returns.append(_return(job, value))
            self._context.callbacks.on_job_end(config=job.composed, job_return=returns[-1])
        return returns

    def _composed(self, number: int, overrides: list[str]) -> _Composed:
        composed = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
            composed.hydra.runtime.output_dir = str((self._folder / str(number)).absolute())
        # What refers to ${hydra:job.num}, say, is looked up when the configuration is read.
        HydraConfig.instance().set_config(composed)
        hydra = HydraConfig.instance().cfg  # a copy, and a costly one: it serves for the answer too
        self._context.callbacks.on_job_start(config=composed, task_function=self._work)
        task = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        try:
            return _Composed(number, composed, hydra, task, self._work.read(task))
        except ConfigError as error:
            raise ConfigError(f"job {number}: {error}") from error


def _return(job: _Composed, value: float | None) -> JobReturn:
    return JobReturn(
        overrides=list(job.composed.hydra.overrides.task),
        cfg=job.task,
        hydra_cfg=job.hydra,
        working_dir=str(Path.cwd()),
        task_name=str(job.composed.hydra.job.name),
        status=JobStatus.COMPLETED,
        _return_value=value,
    )


ConfigStore.instance().store(
    group="hydra/launcher",
    name="lanes",
    node={"_target_": "hydra_plugins.lanes.LanesLauncher", **dataclasses.asdict(Lanes())},
    provider="functorch_kit",
)
