"""From settings to an optax transformation (clipping, schedule, factors by path) and Options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from functorch_kit import precision, train
from functorch_kit.config.checks import pair
from functorch_kit.config.schedules import (
    Cosine,
    Linear,
    OneCycle,
    Piecewise,
    Warmup,
    WarmupStableDecay,
    schedule_steps,
)
from functorch_kit.config.schema import GROUPS, Config, choice_of
from functorch_kit.config.settings import Setting, setting_of
from functorch_kit.train import schedules
from functorch_kit.types import HParams

# Of the base classes of the optimizers' settings: how they are composed, not what they are given.
_COMPOSED = ("learning_rates", "layer_decay", "layers")


def traced(config: Config) -> dict[str, float]:
    """The settings that only change numbers, by dotted name, without those that are off.

    Entries of lists have names of their own: ``schedule.factors[0]``, and by path
    ``optimizer.learning_rates[stem]``.

    Example:
        >>> from functorch_kit import config
        >>> config.traced(config.Config(optimizer=config.SGD(0.1, momentum=0.9)))
        {'model.dropout': 0.3, 'optimizer.learning_rate': 0.1, 'optimizer.momentum': 0.9}
    """
    found: dict[str, float] = {}
    for group in (name for name in GROUPS if hasattr(config, name)):
        section = getattr(config, group)
        for field in dataclasses.fields(section):
            name, value = f"{group}.{field.name}", getattr(section, field.name)
            setting = setting_of(field)
            if setting.pairs:
                found |= {
                    f"{name}[{path}]": factor for path, factor in _pairs(name, value, setting)
                }
            elif setting.traced and isinstance(value, tuple):
                found |= {f"{name}[{index}]": entry for index, entry in enumerate(value)}
            elif setting.traced and value != setting.off:
                found[name] = value
    found.pop("train.schedule_steps", None)
    if (steps := schedule_steps(config)) is not None:
        found["train.schedule_steps"] = steps
    return found


def settings_of(config: Config, group: str, hparams: HParams) -> dict[str, Any]:
    """A section's settings, those that are hyperparameters taken from there.

    Example:
        >>> from functorch_kit import config
        >>> settings_of(config.Config(), "model", {"model.dropout": 0.5})["dropout"]
        0.5
    """
    section = getattr(config, group)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        name, value = f"{group}.{field.name}", getattr(section, field.name)
        setting = setting_of(field)
        if setting.pairs:
            value = {
                path: hparams.get(f"{name}[{path}]", factor)
                for path, factor in _pairs(name, value, setting)
            }
        elif setting.traced and isinstance(value, tuple):
            value = tuple(
                hparams.get(f"{name}[{index}]", entry) for index, entry in enumerate(value)
            )
        found[field.name] = hparams.get(name, value)
    return found


def make_optimizer(config: Config, hparams: HParams) -> optax.GradientTransformation:
    """What updates the parameters.

    Args:
        config: a checked configuration.
        hparams: what ``traced`` finds in it, as arrays or traced.

    Returns:
        The transformation; its ``init`` raises PathError where a path pattern names nothing.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(optimizer=config.SGD(0.5))
        >>> optimizer = make_optimizer(job, {})
        >>> optimizer.update(1.0, optimizer.init(0.0))[0]
        -0.5
    """
    name, section = choice_of(config.optimizer), config.optimizer
    settings = settings_of(config, "optimizer", hparams)
    last = _by_path(*(settings.pop(key, None) for key in _COMPOSED))
    # What is off is left to optax, whose own default is to do without.
    offs = {field.name: setting_of(field).off for field in dataclasses.fields(section)}
    settings = {
        key: value
        for key, value in settings.items()
        if getattr(section, key) is not None and getattr(section, key) != offs[key]
    }
    for rate in ("learning_rate", "adam_learning_rate"):
        if rate in settings:
            settings[rate] = _rate(config, hparams, settings[rate])
    optimizer = train.named(name, last=last, **settings)
    watched = settings_of(config, "train", hparams)
    clips = {key: watched[f"clip_{key}"] for key in ("norm", "value", "adaptive")}
    if all(limit is None for limit in clips.values()):
        return optimizer
    return optax.chain(train.clip(**clips), optimizer)


def make_options(config: Config) -> train.Options:
    """What a step does besides descending.

    Example:
        >>> from functorch_kit import config
        >>> job = config.Config(optimizer=config.OPTIMIZERS["schedule_free_sgd"]())
        >>> make_options(job).evaluate.__name__
        'schedule_free_params'
    """
    settings = config.train
    evaluate: Any = settings.evaluate
    if evaluate == "auto":
        averages = choice_of(config.optimizer).startswith("schedule_free")
        evaluate = train.schedule_free_params if averages else "params"
        evaluate = evaluate if settings.ema_decay is None else "ema"
    return train.Options(
        accumulate=settings.accumulate,
        precision=precision.policy(settings.precision, settings.precision_keep),
        remat=settings.remat,
        remat_policy=settings.remat_policy,
        frozen=settings.frozen,
        ema=None if settings.ema_decay is None else _ema_decay,
        evaluate=evaluate,
        gradient_norm=settings.gradient_norm,
    )


def _ema_decay(hparams: HParams) -> Any:
    return hparams["train.ema_decay"]


def _rate(config: Config, hparams: HParams, peak: Any) -> Any:
    """The learning rate as optax takes it: a number, or a function of the updates made so far."""
    settings = settings_of(config, "schedule", hparams)
    steps = hparams.get("train.schedule_steps", schedule_steps(config))
    match config.schedule:
        case Warmup():
            return schedules.constant(peak, **settings)
        case Linear():
            return schedules.linear(peak, steps, **settings)
        case Cosine():
            return schedules.cosine(peak, steps, **settings)
        case OneCycle():
            return schedules.one_cycle(peak, steps, **settings)
        case WarmupStableDecay():
            down = settings.pop("decay_share") * steps
            return schedules.warmup_stable_decay(peak, steps, down, **settings)
        case Piecewise():
            return schedules.piecewise(peak, **settings)
        case _:
            return peak


def _by_path(
    factors: Mapping[str, Any] | None, decay: Any, layers: tuple[str, ...] | None
) -> optax.GradientTransformation | None:
    """The factors of the learning rate; a layer may be several paths, with spaces between them."""
    parts = []
    if factors:
        parts.append(train.scale_by_path(factors))
    if decay is not None and layers:
        stages = [layer.split() if " " in layer else layer for layer in layers]
        parts.append(train.scale_by_path(train.layer_decay(stages, decay)))
    return optax.chain(*parts) if parts else None


def _pairs(name: str, entries: tuple[str, ...], setting: Setting) -> list[tuple[str, float]]:
    return [pair(f"{name}[{index}]", entry, setting) for index, entry in enumerate(entries)]
