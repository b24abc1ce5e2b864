"""Every setting of a training job, with its default: ``Config()`` is the main job.

The main job trains a small CNN on scanned digits for 20 epochs of 1,258 records in batches of 64.
A field that is ``traced`` only changes numbers: model, objective and optimizer take it as a
hyperparameter, so a new value reuses the compiled program and a sweep may ``vmap`` over it. At its
``off`` value (a dropout of exactly 0, say) or null it is no argument at all, and costs nothing. The
optimizers are in ``optimizers``, the schedules in ``schedules``, ``train`` in ``training``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from functorch_kit.config.data_sets import DATA_SETS, Digits
from functorch_kit.config.devices import Launch, Mesh
from functorch_kit.config.optimizers import OPTIMIZERS, Adam
from functorch_kit.config.schedules import SCHEDULES, Constant
from functorch_kit.config.settings import setting
from functorch_kit.config.training import Train

_WIDTH = {"least": 1, "most": 65_536}
_SEED = {"least": 0, "most": 2**32 - 1}
_SHARE = {"least": 0, "below": 1}


def _dropout(default: float):
    text = "share of the activations that training drops"
    return setting(default, text, **_SHARE, traced=True, off=0.0)


@dataclasses.dataclass
class CNN:
    """3×3 convolutions, one 2×2 max pool, a dense layer with dropout, a dense head."""

    features: tuple[int, ...] = setting((32, 64), "channels of each convolution", **_WIDTH)
    dense: int = setting(128, "width of the dense layer", **_WIDTH)
    dropout: float = _dropout(0.3)


@dataclasses.dataclass
class MLP:
    """Dense layers with ReLU."""

    hidden: tuple[int, ...] = setting(
        (128, 128), "width of each hidden layer; [] for a linear model", fewest=0, **_WIDTH
    )
    dropout: float = _dropout(0.0)
    use_bias: bool = setting(True, "whether the dense layers have biases")


@dataclasses.dataclass
class ResNet18:
    """A residual network of 18 layers with batch norm, for images."""

    stem: str = setting(
        "imagenet",
        "first layers: 7×7 with stride 2 and a pool, or one 3×3 for small images",
        choices=("imagenet", "cifar"),
    )
    width: int = setting(64, "channels of the first stage, doubled by each of the others", **_WIDTH)


@dataclasses.dataclass
class GPTNano:
    """A small GPT for text; the defaults are nanoGPT's recipe for one CPU."""

    layers: int = setting(4, "number of blocks", least=1, most=1000)
    heads: int = setting(4, "attention heads; must divide the width", **_WIDTH)
    width: int = setting(128, "size of a position's vector", **_WIDTH)
    hidden: int | None = setting(None, "width inside the MLP; null: 4 * model.width", **_WIDTH)
    dropout: float = _dropout(0.0)
    use_bias: bool = setting(False, "whether dense layers and layer norms have biases")
    is_tied: bool = setting(True, "whether the head is the token embedding, transposed")
    norm: str = setting("layer", "what blocks begin with", choices=("layer", "rms"))
    position: str = setting(
        "learned", "a table of positions, or queries and keys turned", choices=("learned", "rotary")
    )
    mlp: str = setting("gelu", "the MLP of a block", choices=("gelu", "relu_squared", "swiglu"))
    qk_norm: bool = setting(False, "whether queries and keys are normalised")
    ending: str = setting(
        "scaled", "how the last matrix of each half of a block begins", choices=("scaled", "zero")
    )


@dataclasses.dataclass
class Config:
    """A training job; the defaults are the main job.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(model=config.MLP(hidden=(64,)), optimizer=config.SGD(0.1))
        >>> job.model.hidden, job.optimizer.learning_rate, job.train.steps
        ((64,), 0.1, 394)
    """

    model: CNN | MLP | ResNet18 | GPTNano = dataclasses.field(default_factory=CNN)
    data: Any = dataclasses.field(default_factory=Digits)
    optimizer: Any = dataclasses.field(default_factory=Adam)
    schedule: Any = dataclasses.field(default_factory=Constant)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    seed: int = setting(0, "of parameters, order and dropout", **_SEED)
    run_dir: str | None = setting(None, "where the run is written; null: a new folder in runs/")
    resume: str | None = setting(None, "folder of a run to go on with")
    overwrite: bool = setting(False, "whether run_dir may hold a run, which is then lost")
    quiet: bool = setting(False, "print nothing but the last line")


GROUPS: dict[str, dict[str, type]] = {
    "model": {"cnn": CNN, "mlp": MLP, "resnet18": ResNet18, "gpt_nano": GPTNano},
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
        >>> choice_of(MLP())
        'mlp'
    """
    for choices in GROUPS.values():
        for name, option in choices.items():
            if type(section) is option:
                return name
    raise TypeError(f"{type(section).__name__} is not a choice of any group")
