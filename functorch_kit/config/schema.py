"""Every setting of a training job, with its default: ``Config()`` is the main job.

The main job trains a small CNN on scanned digits for 20 epochs of 1,258 records in batches of 64.
A field that is ``traced`` only changes numbers: model, objective and optimizer take it as a
hyperparameter, so a new value reuses the compiled program and a sweep may ``vmap`` over it. At its
``off`` value (a dropout of exactly 0, say) or null it is no argument at all, and costs nothing. The
models are in ``models``, the optimizers in ``optimizers``, and so on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from functorch_kit.config.data_sets import DATA_SETS, Digits
from functorch_kit.config.devices import Launch, Mesh
from functorch_kit.config.models import CNN, MODELS
from functorch_kit.config.optimizers import OPTIMIZERS, Adam
from functorch_kit.config.schedules import SCHEDULES, Constant
from functorch_kit.config.settings import setting
from functorch_kit.config.training import Train

_SEED = {"least": 0, "most": 2**32 - 1}


@dataclasses.dataclass
class Config:
    """A training job; the defaults are the main job.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(model=config.MLP(hidden=(64,)), optimizer=config.SGD(0.1))
        >>> job.model.hidden, job.optimizer.learning_rate, job.train.steps
        ((64,), 0.1, 394)
    """

    model: Any = dataclasses.field(default_factory=CNN)
    data: Any = dataclasses.field(default_factory=Digits)
    optimizer: Any = dataclasses.field(default_factory=Adam)
    schedule: Any = dataclasses.field(default_factory=Constant)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    seed: int = setting(0, "of parameters, order and dropout", **_SEED)
    init_from: str | None = setting(
        None, "weights to begin with: a file, its folder, or the folder of a run"
    )
    run_dir: str | None = setting(None, "where the run is written; null: a new folder in runs/")
    resume: str | None = setting(None, "folder of a run to go on with")
    overwrite: bool = setting(False, "whether run_dir may hold a run, which is then lost")
    quiet: bool = setting(False, "print nothing but the last line")


GROUPS: dict[str, dict[str, type]] = {
    "model": MODELS,
    "data": DATA_SETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "train": {"default": Train},
    "mesh": {"default": Mesh},
    "launch": {"default": Launch},
}
"""Group -> choice -> its dataclass. There is no other way from a name to a thing."""


def choice_of(section: object) -> str:
    """The name under which a section of a configuration is chosen.

    Example:
        >>> choice_of(CNN())
        'cnn'
    """
    for choices in GROUPS.values():
        for name, option in choices.items():
            if type(section) is option:
                return name
    raise TypeError(f"{type(section).__name__} is not a choice of any group")
