"""What a train step can do besides gradient descent, each thing off by default and then free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from functorch_kit.errors import UserError
from functorch_kit.precision import Policy, policy

REMAT_POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_without_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a train step; clipping, schedules and masks are the optimizer's (see optax).

    Args:
        accumulate: micro-batches in a step: gradients and metrics are added over them and divided
            once, by the weight of all, so that ragged and weighted batches are exact. Randomness
            differs between micro-batches; model_state passes from each to the next.
        precision: ``float32``, ``bf16``, ``fp16``, ``float64`` or a ``precision.Policy``.
        remat: path patterns of parts whose inner values are computed again on the way back.
        remat_policy: what they keep all the same: ``nothing``, ``dots``, ``dots_without_batch``,
            or a policy of ``jax.checkpoint_policies``.
        frozen: path patterns of parameters that are not trained: they are split off before the
            gradient is taken, and their parts are applied as in evaluation.
        ema: decay of an average of the parameters, or a function of the hyperparameters that
            returns it; None for no average.
        evaluate: the parameters that are evaluated and chosen as best: ``params``, ``ema``, or a
            function of the TrainState such as ``optax.contrib.schedule_free_eval_params`` needs.
        gradient_norm: measure the gradient's global norm.

    Raises:
        OptionsError: a value that is none of these.

    Example:
        >>> Options(accumulate=4, precision="bf16", remat=("blocks/*",)).accumulate
        4
    """

    accumulate: int = 1
    precision: str | Policy = "float32"
    remat: Sequence[str] = ()
    remat_policy: str | Callable[..., bool] = "nothing"
    frozen: Sequence[str] = ()
    ema: Any = None
    evaluate: Any = "params"
    gradient_norm: bool = False

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise OptionsError(f"accumulate is {self.accumulate}: give a whole number from 1 up")
        for name in ("remat", "frozen"):
            if isinstance(getattr(self, name), str):
                raise OptionsError(f"{name} is one pattern: give a tuple of them")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not callable(self.remat_policy) and self.remat_policy not in REMAT_POLICIES:
            names = ", ".join(REMAT_POLICIES)
            raise OptionsError(f"remat_policy {self.remat_policy!r} is not one of {names}")
        if self.remat_policy != "nothing" and not self.remat:
            raise OptionsError("remat_policy is for the parts in remat: give remat=(<paths>,)")
        if not callable(self.evaluate) and self.evaluate not in ("params", "ema"):
            raise OptionsError(f"evaluate {self.evaluate!r} is neither 'params' nor 'ema'")
        if self.evaluate == "ema" and self.ema is None:
            raise OptionsError("evaluate is 'ema', but there is none: give ema a decay")
        if not callable(self.ema) and self.ema is not None and not _is_share(self.ema):
            raise OptionsError(
                f"ema is {self.ema!r}: give a decay from 0 to below 1, such as 0.999"
            )
        object.__setattr__(self, "precision", policy(self.precision))

    @property
    def policy(self) -> Policy:
        """The precision policy."""
        return policy(self.precision)

    @property
    def saveable(self) -> Callable[..., bool]:
        """The remat policy as JAX's function."""
        chosen = self.remat_policy
        return chosen if callable(chosen) else REMAT_POLICIES[chosen]


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    return is_number and np.ndim(value) == 0 and bool(0 <= value < 1)


class OptionsError(UserError, ValueError):
    """Options that a train step cannot have; the message says what to change."""
