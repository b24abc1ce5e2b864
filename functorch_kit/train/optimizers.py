"""Every optimizer by name.

Wherever this toolkit takes an optimizer it takes any optax GradientTransformation; the table is for
configurations. All of optax is in it, its ``contrib`` included, except: what optax has replaced
(``optimistic_adam``), what needs a gradient of each example (``dpsgd``), and wrappers around other
optimizers (``mechanize``, ``lookahead``, ``MultiSteps`` …), which are for code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optax
from optax import contrib

from functorch_kit.train.orthogonal import muon
from functorch_kit.train.paths import checked, decay_mask
from functorch_kit.train.schedule_free import schedule_free_adamw, schedule_free_sgd
from functorch_kit.train.sharpness import sam
from functorch_kit.types import PyTree


def named(
    name: str,
    *,
    no_decay: Sequence[str] = (),
    last: optax.GradientTransformation | None = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """The optimizer of that name.

    Args:
        name: a key of ``OPTIMIZERS``.
        no_decay: path patterns of what weight decay leaves alone, see ``decay_mask``.
        last: what is done to the updates, such as ``scale_by_path``; where an optimizer makes more
            of its updates than a step (SAM, schedule-free), it happens before that.
        **settings: arguments of that function; numbers may be traced, ``learning_rate`` may be a
            schedule.

    Returns:
        The transformation; its ``init`` raises PathError where a pattern names nothing.

    Raises:
        KeyError: another name.
        TypeError: an argument that it does not have, or ``no_decay`` where it has no mask.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = named("adamw", learning_rate=0.1, no_decay=["**/bias"])
        >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> float(updates["bias"][0]) > float(updates["kernel"][0, 0])
        True
    """
    make = OPTIMIZERS[name]
    takes = inspect.signature(make).parameters
    if no_decay:
        masks = [mask for mask in ("mask", "weight_decay_mask") if mask in takes]
        if not masks:
            raise TypeError(f"{name} has no mask of its weight decay: leave no_decay out")
        settings[masks[0]] = decay_mask(no_decay)
    if last is None:
        made = make(**settings)
    elif "last" in takes:
        made = make(**settings, last=last)
    else:
        made = optax.chain(make(**settings), last)
    return checked("no_decay", no_decay, made) if no_decay else made


def _sam(
    learning_rate: Any,
    *,
    radius: Any = 0.05,
    momentum: Any = None,
    nesterov: bool = False,
    weight_decay: Any = None,
    every_other_step: bool = False,
    mask: Any = None,
    last: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """SGD at the worst point near the parameters, as in the paper."""
    decay = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]
    sgd = optax.sgd(learning_rate, momentum, nesterov)
    base = optax.chain(*decay, sgd, last or optax.identity())
    return sam(base, radius, every_other_step=every_other_step)


def _sophia(
    learning_rate: Any, *, weight_decay_mask: Any = None, **settings: Any
) -> optax.GradientTransformation:
    """optax calls the loss that it differentiates twice ``obj_fn``, and a step ``value_fn``."""
    inner = contrib.sophia(learning_rate, weight_decay_mask=weight_decay_mask, **settings)

    def update(updates: PyTree, state: Any, params: Any = None, *, value_fn: Any = None, **_: Any):
        return inner.update(updates, state, params, obj_fn=value_fn)

    return optax.GradientTransformationExtraArgs(inner.init, update)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = MappingProxyType(
    {
        "acprop": contrib.acprop,
        "adabelief": optax.adabelief,
        "adadelta": optax.adadelta,
        "adafactor": optax.adafactor,
        "adagrad": optax.adagrad,
        "adam": optax.adam,
        "adamax": optax.adamax,
        "adamaxw": optax.adamaxw,
        "adamw": optax.adamw,
        "adan": optax.adan,
        "ademamix": contrib.ademamix,
        "adopt": contrib.adopt,
        "amsgrad": optax.amsgrad,
        "cocob": contrib.cocob,
        "dadapt_adamw": contrib.dadapt_adamw,
        "dog": contrib.dog,
        "dowg": contrib.dowg,
        "fromage": optax.fromage,
        "galore": contrib.galore,
        "lamb": optax.lamb,
        "lars": optax.lars,
        "lbfgs": optax.lbfgs,
        "lion": optax.lion,
        "madgrad": contrib.madgrad,
        "momo": contrib.momo,
        "momo_adam": contrib.momo_adam,
        "muon": muon,
        "nadam": optax.nadam,
        "nadamw": optax.nadamw,
        "noisy_sgd": optax.noisy_sgd,
        "novograd": optax.novograd,
        "optimistic_adam_v2": optax.optimistic_adam_v2,
        "optimistic_gradient_descent": optax.optimistic_gradient_descent,
        "polyak_sgd": optax.polyak_sgd,
        "prodigy": contrib.prodigy,
        "radam": optax.radam,
        "rmsprop": optax.rmsprop,
        "rprop": optax.rprop,
        "sam": _sam,
        "schedule_free_adamw": schedule_free_adamw,
        "schedule_free_sgd": schedule_free_sgd,
        "sgd": optax.sgd,
        "sign_sgd": optax.sign_sgd,
        "signum": optax.signum,
        "simplified_ademamix": contrib.simplified_ademamix,
        "sm3": optax.sm3,
        "sophia": _sophia,
        "yogi": optax.yogi,
    }
)
"""Name -> function that makes the optimizer; the names are optax's own."""
