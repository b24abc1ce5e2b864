"""Train a model, keep its best parameters, and write a report.

python experiments/train.py                                     a CNN on scanned digits
python experiments/train.py experiment=digits_mlp seed=1        another configuration from conf/
python experiments/train.py model=mlp optimizer.learning_rate=3e-4 train.steps=800
python experiments/train.py resume=runs/<run> train.steps=800   go on with a run
python experiments/train.py model=resnet18 init_from=resnet18.pth train.frozen=[stem]   fine-tune
python experiments/train.py supervise=true run_dir=runs/a       start again after a crash
python experiments/train.py -m seed=0,1,2                       several runs, one after another
python experiments/train.py -m seed=0,1,2 hydra/launcher=lanes  as lanes of one program
python experiments/train.py --cfg job                           show the configuration
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import frame
from outcome import last_line, of_summary, worst_mistakes

from functorch_kit.config import (
    Config,
    ConfigError,
    from_dict,
    new_run_dir,
    resumed,
    setting,
    to_dict,
)


@dataclasses.dataclass
class Supervision:
    supervise: bool = setting(False, "start the run again when its process dies")
    max_restarts: int = setting(
        5, "how often that is done without a new checkpoint", least=0, most=1_000_000
    )
    backoff: float = setting(
        1.0, "seconds before the first restart, doubled for each further one", least=0, most=3600
    )


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
    folder = Path(config.resume or config.run_dir or new_run_dir(config))
    begin = [*sys.argv[1:], "supervise=false", *([] if config.resume else [f"run_dir={folder}"])]
    go_on = [f"resume={folder}", f"quiet={config.quiet}".lower()]

    def marked() -> int | None:
        """Each run that begins replaces this file, one that overwrites another, too."""
        mark = folder / "environment.json"
        return mark.stat().st_mtime_ns if mark.exists() else None

    before = marked()

    def command() -> list[str]:
        has_begun = marked() != before and newest_step(folder) is not None
        own = go_on if has_begun and not config.resume else begin
        return [sys.executable, __file__, *own]

    def progress() -> int | None:
        return newest_step(folder)

    restarts, backoff = config.max_restarts, config.backoff
    sys.exit(supervise(command, progress, max_restarts=restarts, backoff=backoff))


def settled(training: Training) -> Config:
    """The configuration of the run itself."""
    values = to_dict(training)
    return from_dict({name: values[name] for name in values if name not in OF_SUPERVISION})


def train(training: Training, job: frame.Job) -> float | None:
    if training.supervise:
        supervised(training, job)
    config = settled(training)
    if config.resume is not None:
        config = resumed(config, [name for name in job.given if name not in OF_SUPERVISION])
    from functorch_kit.config import build
    from functorch_kit.report.sweep_jobs import judgement

    experiment = build(config)
    folder = config.run_dir if config.resume else job.folder or config.run_dir
    folder = folder or new_run_dir(config)
    if not config.quiet:
        for note in experiment.notes:
            print(f"init_from: {note}")
        print(f"run folder: {folder}")
    page = functools.partial(worst_mistakes, experiment)
    result = experiment.fit(run_dir=folder, page=page)
    split, metrics = of_summary(result.summary, result.history)
    best, steps = result.summary["best_step"], result.summary["steps"]
    print(last_line(split, metrics, best, steps, result.run_dir, experiment.judged_by))
    return judgement(result.summary, result.history, experiment.judged_by)


def together(trainings: Sequence[Training], jobs: frame.Jobs) -> list[frame.Answer]:
    for name, value in {"supervise": True, "overwrite": True}.items():
        if any(getattr(training, name) == value for training in trainings):
            raise ConfigError(f"{name}=true is for one run: leave it out")
    if any(training.resume is not None for training in trainings):
        raise ConfigError("resume is for one run: a sweep goes on when its folder is given again")
    from sweeping import run_all

    return run_all([settled(training) for training in trainings], jobs)


if __name__ == "__main__":
    frame.run(train, Training, together=together)
