"""Train a model, keep its best parameters, and write a report.

python experiments/train.py                                     a CNN on scanned digits
python experiments/train.py experiment=digits_mlp seed=1        another configuration from conf/
python experiments/train.py model=mlp optimizer.learning_rate=3e-4 train.steps=800
python experiments/train.py resume=runs/<run> train.steps=800   go on with a run
python experiments/train.py model=resnet18 init_from=resnet18.pth train.frozen=[stem]   fine-tune
python experiments/train.py supervise=true run_dir=runs/a       start again after a crash
python experiments/train.py model=mlp launch.processes=4        one run in four processes
python experiments/train.py model=mlp mesh.fsdp=4               one run on four devices
python experiments/train.py -m seed=0,1,2                       several runs, one after another
python experiments/train.py -m seed=0,1,2 hydra/launcher=lanes  as lanes of one program
python experiments/train.py --cfg job                           show the configuration
"""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import frame
from outcome import last_line, of_summary, worst_mistakes

from functorch_kit.config import (
    Config,
    ConfigError,
    Launch,
    from_dict,
    new_run_dir,
    resumed,
    setting,
    to_dict,
)
from functorch_kit.errors import UserError


@dataclasses.dataclass
class Supervision:
    supervise: bool = setting(False, "start the run again when its process dies")
    max_restarts: int = setting(
        5, "how often that is done without a new checkpoint", least=0, most=1_000_000
    )
    backoff: float = setting(
        1.0, "seconds before the first restart, doubled for each further one", least=0, most=3600
    )
    launch: Launch = dataclasses.field(default_factory=Launch)


# The one is of this script, the other of the run: its folder keeps the other alone.
@dataclasses.dataclass
class Training(Supervision, Config):
    pass


OF_SUPERVISION = tuple(field.name for field in dataclasses.fields(Supervision))


def supervised(config: Training, job: frame.Job) -> NoReturn:
    """The same command in a process of its own; once there is a checkpoint, its run is resumed."""
    from functorch_kit.supervise import newest_step, supervise

    if job.folder:
        raise ConfigError("supervise=true is for one run: leave out -m, or start each by itself")
    folder, processes = folder_of(config), [config.launch.processes]
    words = [word for word in sys.argv[1:] if not word.startswith("launch.processes=")]
    begin = [*words, "supervise=false", *([] if config.resume else [f"run_dir={folder}"])]
    go_on = [f"resume={folder}", f"quiet={config.quiet}".lower()]
    go_on += [word for word in words if word.startswith(("launch.", "mesh."))]
    reached: list[int | None] = []

    def marked() -> int | None:
        """Each run that begins replaces this file, one that overwrites another, too."""
        mark = folder / "environment.json"
        return mark.stat().st_mtime_ns if mark.exists() else None

    before = marked()

    def command() -> list[str]:
        has_begun = marked() != before and newest_step(folder) is not None
        own = go_on if has_begun and not config.resume else begin
        # Twice at one step: fewer processes may do what so many could not.
        reached.append(newest_step(folder))
        if config.launch.least is not None and reached[-2:] == [reached[-1]] * 2:
            processes[0] = max(config.launch.least, processes[0] // 2)
        several = [f"launch.processes={processes[0]}"] if config.launch.processes > 1 else []
        return [sys.executable, __file__, *own, *several]

    def progress() -> int | None:
        return newest_step(folder)

    restarts, backoff = config.max_restarts, config.backoff
    sys.exit(supervise(command, progress, max_restarts=restarts, backoff=backoff))


def folder_of(config: Training) -> Path:
    return Path(config.resume or config.run_dir or new_run_dir(config))


def launched(config: Training, job: frame.Job) -> NoReturn:
    """The same command in several processes, which are one run."""
    from functorch_kit.distributed import launch

    if job.folder:
        raise ConfigError("launch.processes is for one run: leave out -m, or start each by itself")
    own = [] if config.resume or config.run_dir else [f"run_dir={folder_of(config)}"]
    sys.exit(launch([sys.executable, __file__, *sys.argv[1:], *own], config.launch.processes))


def joined(config: Training) -> Any:
    """The processes of the run, once all are there; and virtual devices where a CPU lacks them."""
    import jax

    from functorch_kit import distributed

    asked = config.launch
    place = asked.coordinator, asked.count, asked.index
    distributed.connect(*place, detect=asked.detect, heartbeat_seconds=asked.heartbeat)
    sizes = [size for size in dataclasses.asdict(config.mesh).values() if (size or 1) > 0]
    here = math.prod(size or 1 for size in sizes) // distributed.process_count()
    if here > max(1, jax.config.values["jax_num_cpu_devices"]):
        with contextlib.suppress(RuntimeError):  # too late: then it is said what is missing
            jax.config.update("jax_num_cpu_devices", here)
    return distributed.Team.of_all() if distributed.process_count() > 1 else distributed.Team()


@contextlib.contextmanager
def leaving_at_once(team: Any) -> Iterator[None]:
    """A process that fails alone does not wait for the others, who would wait for it."""
    try:
        yield
    except Exception as error:
        if team.count == 1:
            raise
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr, flush=True)
            os._exit(error.exit_code)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def is_of_supervision(name: str) -> bool:
    return name.partition(".")[0] in OF_SUPERVISION


def settled(training: Training) -> Config:
    """The configuration of the run itself."""
    values = to_dict(training)
    return from_dict({name: values[name] for name in values if name not in OF_SUPERVISION})


def train(training: Training, job: frame.Job) -> float | None:
    if training.supervise:
        supervised(training, job)
    if training.launch.processes > 1 and "FUNCTORCH_KIT_PROCESS" not in os.environ:
        launched(training, job)
    config = settled(training)
    if config.resume is not None:
        config = resumed(config, [name for name in job.given if not is_of_supervision(name)])
    team = joined(training)
    from functorch_kit.config import build

    with leaving_at_once(team):
        return trained(build(config), config, job, team)


def trained(experiment: Any, config: Config, job: frame.Job, team: Any) -> float | None:
    from functorch_kit.report.sweep_jobs import judgement

    folder = config.run_dir if config.resume else job.folder or config.run_dir
    if folder is None:  # one process makes it, all write there
        folder = team.said(str(new_run_dir(config)) if team.is_main else None)
    if not config.quiet and team.is_main:
        for note in experiment.notes:
            print(f"init_from: {note}")
        print(f"run folder: {folder}")
    page = functools.partial(worst_mistakes, experiment)
    result = experiment.fit(run_dir=folder, page=page)
    split, metrics = of_summary(result.summary, result.history)
    best, steps = result.summary["best_step"], result.summary["steps"]
    if team.is_main:
        print(last_line(split, metrics, best, steps, result.run_dir, experiment.judged_by))
    return judgement(result.summary, result.history, experiment.judged_by)


def together(trainings: Sequence[Training], jobs: frame.Jobs) -> list[frame.Answer]:
    for name, value in {"supervise": True, "overwrite": True}.items():
        if any(getattr(training, name) == value for training in trainings):
            raise ConfigError(f"{name}=true is for one run: leave it out")
    if any(training.launch != Launch() for training in trainings):
        raise ConfigError("launch.processes is for one run: leave it out")
    if any(training.resume is not None for training in trainings):
        raise ConfigError("resume is for one run: a sweep goes on when its folder is given again")
    from sweeping import run_all

    return run_all([settled(training) for training in trainings], jobs)


if __name__ == "__main__":
    frame.run(train, Training, together=together)
