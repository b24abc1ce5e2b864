"""Steps that may be refused: updates that are not finite, and scaled gradients that overflow."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.errors import UserError
from functorch_kit.precision import Policy
from functorch_kit.types import PyTree


class NonFinite(UserError, ArithmeticError):
    """A step gave a NaN or an infinity; the message says which step, where, and what to do.

    Attributes:
        step: number of the step, from 1 up.
        state: where updates are guarded, the TrainState before that step.

    Example:
        >>> str(NonFinite(7, "step 7: the loss is not finite"))
        'step 7: the loss is not finite'
    """

    exit_code = 3

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step
        self.state: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guard:
    """What a guarded state remembers of the steps that were refused.

    Attributes:
        skipped: steps whose update was not taken, int32 ().
        failed: whether a step failed for good: no later step changes anything, bool ().

    Example:
        >>> int(new_guard().skipped), bool(new_guard().failed)
        (0, False)
    """

    skipped: Any
    failed: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling (Micikevicius et al., 2018).

    Attributes:
        scale: what the loss is multiplied by, float32 ().
        good_steps: steps since it last changed, int32 ().

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.precision import policy
        >>> float(adjusted(new_loss_scale(policy("fp16")), policy("fp16"), jnp.bool_(False)).scale)
        16384.0
    """

    scale: Any
    good_steps: Any


def new_guard() -> Guard:
    """The guard before the first step.

    Example:
        >>> new_guard().skipped.dtype
        dtype('int32')
    """
    return Guard(jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def new_loss_scale(policy: Policy) -> LossScale:
    """The loss scale before the first step.

    Example:
        >>> from functorch_kit.precision import policy
        >>> float(new_loss_scale(policy("fp16")).scale)
        32768.0
    """
    return LossScale(jnp.asarray(policy.loss_scale, jnp.float32), jnp.zeros((), jnp.int32))


def adjusted(loss_scale: LossScale, policy: Policy, fits: jax.Array) -> LossScale:
    """Half after an overflow, double after many steps without one; never below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.precision import policy
        >>> now = LossScale(jnp.float32(8), jnp.int32(1999))
        >>> float(adjusted(now, policy("fp16"), jnp.bool_(True)).scale)
        16.0
    """
    good = jnp.where(fits, loss_scale.good_steps + 1, 0)
    grows = good >= policy.growth_every
    scale = jnp.where(fits, loss_scale.scale, jnp.maximum(loss_scale.scale / 2, 1))
    # Above this the scale itself would overflow sooner than the gradients underflow.
    scale = jnp.where(grows, jnp.minimum(scale * 2, 2.0**24), scale)
    return LossScale(scale, jnp.where(grows, 0, good))


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no float of a tree is a NaN or an infinity, bool ().

    Example:
        >>> import jax.numpy as jnp
        >>> bool(all_finite({"a": jnp.ones(3), "n": jnp.int32(1)}))
        True
        >>> bool(all_finite({"a": jnp.array([1.0, jnp.inf])}))
        False
    """
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.all(jnp.isfinite(leaf))
    return finite


def select(condition: jax.Array, chosen: PyTree, otherwise: PyTree) -> PyTree:
    """Leaf by leaf one tree or the other.

    Example:
        >>> import jax.numpy as jnp
        >>> int(select(jnp.bool_(True), {"n": jnp.int32(1)}, {"n": jnp.int32(2)})["n"])
        1
    """
    # What is the same in both, a key or a frozen parameter, passes untouched.
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), chosen, otherwise)
