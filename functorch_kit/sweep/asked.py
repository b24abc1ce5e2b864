"""What a job is asked for: a configuration, or the arguments of ``fit``."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import numpy as np

from functorch_kit import train
from functorch_kit.config import Config, build, traced
from functorch_kit.config.runs import saved
from functorch_kit.data import Data
from functorch_kit.errors import UserError
from functorch_kit.loop import fit
from functorch_kit.types import spec_of

Arguments = dict[str, Any]
"""Arguments of ``fit``, all by name, but for those that a sweep gives."""

_GIVEN_BY_THE_SWEEP = ("run_dir", "resume", "overwrite", "quiet", "programs")
_TRACED = ("hparams", "seed")


class Configured:
    """A job that a configuration describes.

    Args:
        config: the configuration.

    Attributes:
        key: what jobs must have in common to share a program: every setting that is not traced.
        settings: plain values by name, nested.

    Example:
        >>> from functorch_kit.config import SGD, Config
        >>> slow, fast = Configured(Config(optimizer=SGD(0.1))), Configured(
        ...     Config(optimizer=SGD(0.2), seed=1))
        >>> slow.key == fast.key, slow.key == Configured(Config()).key
        (True, False)
    """

    def __init__(self, config: Config):
        self.config = config
        self.settings: dict[str, Any] = saved(config)
        values, names = saved(config), traced(config)
        values["seed"] = "traced"
        for name in names:
            group, _, key = name.partition("[")[0].partition(".")
            values[group][key] = "traced"
        self.key: Hashable = json.dumps([values, sorted(names)], sort_keys=True, default=str)

    def first(self) -> tuple[Arguments, tuple[str, str]]:
        """The arguments of ``fit``, and by which metric a person judges the run, min or max."""
        experiment = build(self.config)
        arguments = _whole(experiment.fit_arguments())
        judged = experiment.judged_by, "max" if experiment.is_classification else "min"
        return arguments, judged

    def like(self, first: Arguments, data: dict[int, Data]) -> Arguments:
        """The arguments, made of those of another job of the same key.

        Args:
            first: those of the other job.
            data: by seed, as far as they were made: jobs of a seed read the same batches, those of
                another the same records in another order.
        """
        config = self.config
        data.setdefault(first["seed"], first["data"])
        if config.seed not in data:
            order = first["data"].train.seeded(config.seed)
            data[config.seed] = first["data"]._replace(train=order)
        own = {"hparams": traced(config), "seed": config.seed, "config": self.settings}
        return first | own | {"data": data[config.seed]}


class Given:
    """A job that is given as arguments of ``fit``.

    Args:
        arguments: by name. Those that were the same objects share a program, whatever the values
            of their hyperparameters, their seed, and the order of their data.

    Raises:
        UserError: an argument that ``fit`` has not, or that the sweep gives.

    Attributes:
        key: see ``Configured``.
        settings: likewise: the hyperparameters, the seed, and other plain arguments.

    Example:
        >>> import numpy as np, optax
        >>> from functorch_kit import data, nn, train
        >>> model = nn.dense(2)
        >>> job = {"model": model, "objective": train.classification(model), "steps": 5,
        ...        "optimizer": lambda h: optax.sgd(h["learning_rate"]),
        ...        "data": data.arrays(np.eye(20), np.arange(20) % 2, batch_size=4)}
        >>> slow, fast = (Given(job | {"hparams": {"learning_rate": r}}) for r in (0.1, 0.2))
        >>> slow.key == fast.key, slow.settings
        (True, {'learning_rate': 0.1, 'seed': 0, 'steps': 5})
    """

    def __init__(self, arguments: Mapping[str, Any]):
        known = inspect.signature(fit).parameters
        for name in arguments:
            if name in _GIVEN_BY_THE_SWEEP or name not in known:
                why = "the sweep gives it" if name in known else "fit has no such argument"
                raise UserError(f"{name} in a job of a sweep: {why}; leave it out")
        for name, parameter in known.items():
            needed = parameter.default is parameter.empty
            if needed and name not in arguments:
                raise UserError(f"a job of a sweep has no {name}: give it, as for fit")
        self._arguments = _whole(arguments)
        plain = {
            name: value
            for name, value in arguments.items()
            if isinstance(value, bool | int | float | str)
        }
        hparams = {name: float(value) for name, value in self._arguments["hparams"].items()}
        self.settings: dict[str, Any] = hparams | {"seed": self._arguments["seed"]} | plain
        shared = {n: v for n, v in self._arguments.items() if n not in (*_TRACED, "config")}
        self.key: Hashable = repr(
            [sorted(hparams), {name: _likeness(value) for name, value in shared.items()}]
        )

    def first(self) -> tuple[Arguments, tuple[str, str]]:
        """See ``Configured``; the run is judged as it chooses its best step."""
        return self._arguments, self._arguments["best"]

    def like(self, first: Arguments, data: dict[int, Data]) -> Arguments:
        """See ``Configured``; they are all its own."""
        return self._arguments


Asked = Configured | Given


def asked(job: Config | Mapping[str, Any]) -> Asked:
    """A job as it was given.

    Example:
        >>> asked(Config()).settings["seed"]
        0
        >>> asked({"model": 1})
        Traceback (most recent call last):
        functorch_kit.errors.UserError: a job of a sweep has no objective: give it, as for fit
    """
    return Configured(job) if isinstance(job, Config) else Given(job)


def _whole(arguments: Mapping[str, Any]) -> Arguments:
    """The arguments with ``fit``'s defaults, without those that the sweep gives."""
    defaults = {name: each.default for name, each in inspect.signature(fit).parameters.items()}
    whole = defaults | dict(arguments)
    whole |= {"options": whole["options"] or train.Options(), "hooks": tuple(whole["hooks"])}
    whole["hparams"] = dict(whole["hparams"] or {})
    if whole["mesh"] is not None:
        raise UserError("mesh in a job of a sweep: lanes have the devices; leave it out")
    return {name: each for name, each in whole.items() if name not in _GIVEN_BY_THE_SWEEP}


def _likeness(value: Any) -> Any:
    """What two arguments have in common that may stand in one program.

    Plain values are as they are, anything else is itself, and training data what they are but for
    their records' values and the seed of their order.
    """
    if isinstance(value, Data):
        rest = [id(part) for part in (value.validation, value.test)]
        return [_pipeline_likeness(value.train), *rest, value.class_names, value.name]
    if isinstance(value, train.Options) or _is_plain(value):
        return repr(value)
    return id(value)


def _pipeline_likeness(value: Any, name: str = "") -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        parts = {name: _pipeline_likeness(getattr(value, name), name) for name in fields}
        return [type(value).__qualname__, parts]
    if isinstance(value, np.ndarray | jax.Array):
        return repr(spec_of(value))
    if isinstance(value, Mapping):
        return {key: _pipeline_likeness(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_pipeline_likeness(each) for each in value]
    if name == "seed":
        return "seed"
    return repr(value) if _is_plain(value) else id(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
