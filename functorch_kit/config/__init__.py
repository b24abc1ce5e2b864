"""From plain settings to a training job: dataclasses, checks, and explicit tables of names.

``build`` and what belongs to it load JAX; the rest does not, so that a wrong setting is answered
at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

from functorch_kit.config.command_line import (
    check_choice,
    check_name,
    check_value,
    groups,
    is_text,
    refuse_added,
)
from functorch_kit.config.convert import from_dict, slots, to_dict, unknown
from functorch_kit.config.data_sets import (
    Cifar,
    Digits,
    Gaussian,
    Idx,
    Images,
    Npy,
    Npz,
    Sinusoids,
    Spirals,
    SyntheticImages,
    Table,
    TeacherStudent,
    Text,
    Tokens,
)
from functorch_kit.config.devices import Launch, Mesh
from functorch_kit.config.errors import ConfigError
from functorch_kit.config.listing import describe
from functorch_kit.config.models import CNN, MLP, MODELS, GPTNano, ResNet18
from functorch_kit.config.optimizers import OPTIMIZERS, SGD, Adam, AdamW
from functorch_kit.config.runs import load_run, new_run_dir, resumed
from functorch_kit.config.schedules import (
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Piecewise,
    Warmup,
    WarmupStableDecay,
)
from functorch_kit.config.schema import GROUPS, Config, Train, choice_of
from functorch_kit.config.settings import Setting, setting
from functorch_kit.config.together import better
from functorch_kit.config.training import OF_WHOLE_RUNS

if TYPE_CHECKING:
    from functorch_kit.config.experiment import Experiment, build
    from functorch_kit.config.language import LanguageModel, load_language_model
    from functorch_kit.config.optimization import traced
    from functorch_kit.config.restoring import Best, restore_best
    from functorch_kit.config.serving import Servable, load_servable, servable_model

__all__ = [
    "CNN",
    "GROUPS",
    "MLP",
    "MODELS",
    "OF_WHOLE_RUNS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "Best",
    "Cifar",
    "Config",
    "ConfigError",
    "Constant",
    "Cosine",
    "Digits",
    "Experiment",
    "GPTNano",
    "Gaussian",
    "Idx",
    "Images",
    "LanguageModel",
    "Launch",
    "Linear",
    "Mesh",
    "Npy",
    "Npz",
    "OneCycle",
    "Piecewise",
    "ResNet18",
    "Servable",
    "Setting",
    "Sinusoids",
    "Spirals",
    "SyntheticImages",
    "Table",
    "TeacherStudent",
    "Text",
    "Tokens",
    "Train",
    "Warmup",
    "WarmupStableDecay",
    "better",
    "build",
    "check_choice",
    "check_name",
    "check_value",
    "choice_of",
    "describe",
    "from_dict",
    "groups",
    "is_text",
    "load_language_model",
    "load_run",
    "load_servable",
    "new_run_dir",
    "refuse_added",
    "restore_best",
    "resumed",
    "servable_model",
    "setting",
    "slots",
    "to_dict",
    "traced",
    "unknown",
]


_OF = {
    "Experiment": "experiment",
    "build": "experiment",
    "LanguageModel": "language",
    "load_language_model": "language",
    "traced": "optimization",
    "Best": "restoring",
    "restore_best": "restoring",
    "Servable": "serving",
    "load_servable": "serving",
    "servable_model": "serving",
}


def __getattr__(name: str) -> Any:
    if name in _OF:
        return getattr(importlib.import_module(f"functorch_kit.config.{_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
