"""Settings that are right alone and wrong together, seen before any data is made."""

from __future__ import annotations

import math
from typing import Any

from functorch_kit.config.data_sets import (
    Gaussian,
    Images,
    Npz,
    Sinusoids,
    Spirals,
    Split,
    SyntheticImages,
    TeacherStudent,
)
from functorch_kit.config.errors import ConfigError, shown, suggestion
from functorch_kit.config.models import GPTModel
from functorch_kit.config.schedules import Constant, Piecewise, Warmup
from functorch_kit.config.schema import choice_of

_MOST_BYTES = 8 << 30
# They find the size of a step themselves, or keep it for each parameter.
_WITHOUT_SCHEDULE = ("lbfgs", "polyak_sgd", "rprop", "sm3")
_MORE = (
    "accuracy", "precision", "recall", "f1", "auc", "score", "iou", "bleu", "r2", "correlation",
)  # fmt: skip
_LESS = ("loss", "error", "perplexity", "mse", "mae", "rmse", "bits", "nats", "distance")
_DECAYS = ("weight_decay", "weight_decay_rate", "adam_weight_decay")


def go_together(config: Any) -> None:
    """Refuse settings that contradict one another, or of which one would be ignored.

    Args:
        config: whose settings are right one by one; of any schema.

    Raises:
        ConfigError: naming them, and what to change.

    Example:
        >>> from functorch_kit.config import Config, SGD
        >>> go_together(Config(optimizer=SGD(nesterov=True)))
        Traceback (most recent call last):
        functorch_kit...ConfigError: optimizer.nesterov needs momentum: give optimizer.momentum=0.9,
        say
    """
    _of_data(getattr(config, "data", None))
    _of_model(getattr(config, "model", None))
    if hasattr(config, "optimizer"):
        _of_optimizer(config.optimizer)
        _of_schedule(config)
        _of_options(config.train, choice_of(config.optimizer))
        better(config.train.best, config.train.best_mode)
    if getattr(config, "resume", None) and getattr(config, "overwrite", False):
        raise ConfigError("resume and overwrite exclude each other: give one of them")


def better(metric: str, mode: str = "auto") -> str:
    """Which way a metric is better: as it is said, or by the metric's name.

    Args:
        metric: name of a validation metric.
        mode: ``"min"``, ``"max"``, or ``"auto"``.

    Returns:
        ``"min"`` or ``"max"``.

    Raises:
        ConfigError: its name says nothing of that.

    Example:
        >>> better("accuracy"), better("validation_loss"), better("reward", "max")
        ('max', 'min', 'max')
    """
    if mode != "auto":
        return mode
    words = metric.lower().split("_")
    up, down = (set(words) & set(names) for names in (_MORE, _LESS))
    if bool(up) == bool(down):
        hint = suggestion(metric, [*_MORE, *_LESS]).replace(": ", "; ")
        raise ConfigError(
            f"train.best is {shown(metric)}, whose name does not say which way is better:"
            f" give train.best_mode=max or train.best_mode=min{hint}"
        )
    return "max" if up else "min"


def _of_model(model: Any) -> None:
    match model:
        case GPTModel(position="learned", rotary_base=base) if base != 1e4:
            raise ConfigError(
                "model.rotary_base needs model.position=rotary: give both, or neither"
            )
        case GPTModel(exact_gelu=False, mlp=mlp) if mlp != "gelu":
            raise ConfigError(
                f"model.exact_gelu means nothing to model.mlp={mlp}: leave it at true"
            )
        case _:
            pass
    heads = getattr(model, "heads", None)
    if heads is None:
        return
    if model.width % heads:
        raise ConfigError(f"model.width is {model.width}: model.heads, {heads}, must divide it")
    match model:
        case GPTModel(kv_heads=int(groups)) if heads % groups:
            raise ConfigError(f"model.heads is {heads}: model.kv_heads, {groups}, must divide it")
        case GPTModel(position="rotary", width=width) if width // heads % 2:
            raise ConfigError(
                f"model.position is 'rotary', which turns pairs, and a head has {width // heads}"
                " entries: give a model.width that makes them even"
            )
        case _:
            pass


def _of_data(data: Any) -> None:
    match data:
        case SyntheticImages(count=count, classes=classes, shape=shape):
            if classes > count:
                raise ConfigError(
                    f"data.classes is {classes}: data.count, {count}, must be as many"
                )
            _fits_in_memory(count * math.prod(shape), "data.count × data.shape")
        case Gaussian(count=count, inputs=inputs, outputs=outputs):
            _fits_in_memory(count * (inputs + outputs), "data.count × data.inputs")
        case Sinusoids(count=count, outputs=outputs):
            _fits_in_memory(count * (1 + outputs), "data.count × data.outputs")
        case TeacherStudent(count=count, inputs=inputs, hidden=hidden, outputs=outputs):
            # The teacher's own numbers are float64, and there for a moment.
            _fits_in_memory(
                2 * (count * (inputs + hidden + outputs) + hidden * (inputs + outputs)),
                "data.count × (data.inputs + data.hidden)",
            )
        case Images(channels=2):
            raise ConfigError("data.channels is 2: give 3 for colours, 1 for grey")
        case (
            Npz(validation=validation, test=test)
            | Spirals(validation=validation, test=test)
            | Split(validation=validation, test=test)
        ) if (validation + (test or 0)) >= 1:
            raise ConfigError(
                f"data.validation {validation:g} and data.test {test or 0:g} leave nothing to train"
                " on: give shares whose sum is below 1"
            )
        case _:
            pass


def _fits_in_memory(numbers: int, what: str) -> None:
    if numbers * 4 > _MOST_BYTES:
        raise ConfigError(
            f"{what} makes {numbers * 4 / 2**30:,.0f} GiB:"
            f" give sizes that make {_MOST_BYTES >> 30} GiB at most"
        )


def _of_optimizer(optimizer: Any) -> None:
    if getattr(optimizer, "nesterov", False) and getattr(optimizer, "momentum", 1.0) == 0:
        raise ConfigError("optimizer.nesterov needs momentum: give optimizer.momentum=0.9, say")
    if getattr(optimizer, "no_decay", ()) and not any(
        getattr(optimizer, name, 0) for name in _DECAYS
    ):
        raise ConfigError(
            "optimizer.no_decay means nothing without weight decay:"
            " give optimizer.weight_decay=0.1, say"
        )
    has_factor = getattr(optimizer, "layer_decay", None) is not None
    if has_factor and not optimizer.layers:
        raise ConfigError(
            "optimizer.layer_decay needs the layers: give optimizer.layers=[<paths from the input"
            " to the output>]"
        )
    if not has_factor and getattr(optimizer, "layers", ()):
        raise ConfigError("optimizer.layers needs a factor: give optimizer.layer_decay=0.75, say")


def _of_schedule(config: Any) -> None:
    schedule, steps = config.schedule, config.train.schedule_steps
    name, chosen = choice_of(schedule), choice_of(config.optimizer)
    if not isinstance(schedule, Constant) and chosen in _WITHOUT_SCHEDULE:
        raise ConfigError(
            f"schedule={name} needs a learning rate to follow it, and optimizer={chosen} sizes its"
            " own steps: give schedule=constant"
        )
    # What goes on has the schedule of its run, which `resumed` asks about.
    goes_on = config.resume is not None
    if not goes_on and steps is not None and isinstance(schedule, Constant | Warmup | Piecewise):
        raise ConfigError(
            f"train.schedule_steps means nothing to schedule={name}, which has no end: give null"
        )
    match schedule:
        case Piecewise(boundaries=boundaries, factors=factors) if len(boundaries) != len(factors):
            raise ConfigError(
                f"schedule.boundaries has {len(boundaries)} entries and schedule.factors"
                f" {len(factors)}: give one factor for each boundary"
            )
        case _:
            pass


def _of_options(train: Any, optimizer: str) -> None:
    if train.batch_size % train.accumulate:
        raise ConfigError(
            f"train.accumulate is {train.accumulate}: it must divide train.batch_size,"
            f" {train.batch_size}"
        )
    if train.evaluate == "ema" and train.ema_decay is None:
        raise ConfigError("train.evaluate is 'ema', and there is none: give train.ema_decay=0.999")
    if train.precision_keep and train.precision in ("float32", "float64"):
        raise ConfigError(
            f"train.precision_keep means nothing to train.precision={train.precision}, in which"
            " everything computes alike: give train.precision=bf16, say"
        )
    if train.remat_policy != "nothing" and not train.remat:
        raise ConfigError(
            "train.remat_policy is for the parts in train.remat: give train.remat=[<paths>]"
        )
    if optimizer == "lbfgs":
        clips = ("clip_norm", "clip_value", "clip_adaptive")
        for name in (each for each in clips if getattr(train, each) is not None):
            raise ConfigError(
                f"train.{name} would mislead the line search of optimizer=lbfgs: give null"
            )
        if train.precision == "fp16":
            raise ConfigError(
                "train.precision is 'fp16', whose overflows would end the line search of"
                " optimizer=lbfgs: give float32"
            )
