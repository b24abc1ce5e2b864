"""The settings of learning-rate schedules; the library's functions are in ``train.schedules``.

A schedule multiplies ``optimizer.learning_rate``, so its values are shares of that. All of its
numbers are hyperparameters, the numbers of steps among them. It is made for
``train.schedule_steps``, which is ``train.steps`` unless it is given, and a run keeps the number:
going on with more steps does not stretch what was begun, unless it is asked to.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from functorch_kit.config.settings import setting

_STEPS = {"least": 0, "most": 2**31 - 1, "traced": True}
_SHARE = {"least": 0, "most": 1, "traced": True}


def _warmup(default: int):
    return setting(default, "steps that a linear warm-up takes", **_STEPS)


def _initial():
    return setting(0.0, "first value of the warm-up, as a share of the learning rate", **_SHARE)


def _final():
    return setting(0.0, "last value, as a share of the learning rate", **_SHARE)


@dataclasses.dataclass
class Constant:
    """The learning rate, all the time."""


@dataclasses.dataclass
class Warmup:
    """Linear warm-up to the learning rate, which stays."""

    warmup_steps: int = _warmup(100)
    initial: float = _initial()


@dataclasses.dataclass
class Linear:
    """Linear warm-up, then a straight line to the last value."""

    warmup_steps: int = _warmup(0)
    initial: float = _initial()
    final: float = _final()


@dataclasses.dataclass
class Cosine:
    """Linear warm-up, then half a cosine to the last value (Loshchilov and Hutter, 2017)."""

    warmup_steps: int = _warmup(0)
    initial: float = _initial()
    final: float = _final()


@dataclasses.dataclass
class OneCycle:
    """Half a cosine up to the learning rate and half a one down (Smith and Topin, 2018)."""

    rise: float = setting(0.3, "share of the steps that the way up takes", **_SHARE)
    initial: float = setting(0.04, "first value, as a share of the learning rate", **_SHARE)
    final: float = setting(4e-6, "last value, as a share of the learning rate", **_SHARE)


@dataclasses.dataclass
class WarmupStableDecay:
    """Linear warm-up, the learning rate, and a straight line down at the end (Hu et al., 2024)."""

    warmup_steps: int = _warmup(0)
    decay_share: float = setting(0.2, "share of the steps that the way down takes", **_SHARE)
    initial: float = _initial()
    final: float = _final()


@dataclasses.dataclass
class Piecewise:
    """The learning rate times a factor from each of some steps on."""

    boundaries: tuple[int, ...] = setting((200, 300), "the steps, in any order", **_STEPS)
    factors: tuple[float, ...] = setting(
        (0.1, 0.1), "factor that each of them brings", least=0, most=1e6, traced=True
    )
    warmup_steps: int = _warmup(0)
    initial: float = _initial()


SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "warmup": Warmup,
    "linear": Linear,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "wsd": WarmupStableDecay,
    "piecewise": Piecewise,
}
"""Choice -> its settings."""


def schedule_steps(config: Any) -> int | None:
    """How many steps the schedule of a configuration is made for; None where it has no end.

    Example:
        >>> from functorch_kit.config import Config
        >>> schedule_steps(Config(schedule=Cosine())), schedule_steps(Config(schedule=Warmup()))
        (394, None)
    """
    if isinstance(config.schedule, Constant | Warmup | Piecewise):
        return None
    return config.train.schedule_steps or config.train.steps
