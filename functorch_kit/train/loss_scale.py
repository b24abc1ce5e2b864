"""Dynamic loss scaling: what keeps half-precision gradients from underflowing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.precision import Policy
from functorch_kit.types import PyTree, wide_float


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


def unless_it_overflows(
    taken: Callable[[], tuple[Any, jax.Array]],
    state: Any,
    gradients: PyTree,
    loss_sum: jax.Array,
    policy: Policy,
) -> tuple[Any, dict[str, jax.Array]]:
    """The state after a step that is taken only if its scaled gradients are finite.

    A step that overflows is passed over, and the next one has half the scale. Where scaling down
    cannot help, because the loss itself is not finite or nothing is left to scale down, the step
    has failed: it is passed over too, and the scale stays.

    Args:
        taken: gives the TrainState after the step, and whether what the optimizer computed besides
            was finite, bool (): the gradient at another point, say.
        state: the TrainState before it, with a loss scale.
        gradients: of the step, as the optimizer gets them.
        loss_sum: of the step, not scaled.
        policy: with a loss scale.

    Returns:
        The state, and two signs, each 0 or 1: ``refused``, and ``failed``, see above.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit.precision import policy
        >>> from functorch_kit.train import TrainState
        >>> half, scale = policy("fp16"), new_loss_scale(policy("fp16"))
        >>> state = TrainState(jnp.int32(3), jnp.ones(2), (), (), None, loss_scale=scale)
        >>> after, signs = unless_it_overflows(
        ...     lambda: (state, jnp.bool_(True)), state, jnp.array([jnp.inf]), jnp.float32(0), half)
        >>> int(after.step), float(after.loss_scale.scale), float(signs["failed"])
        (4, 16384.0, 0.0)
    """
    loss_scale, loss_is_finite = state.loss_scale, jnp.isfinite(loss_sum)
    goes = loss_is_finite & all_finite(gradients)
    # A branch, not a choice between two results: what is not taken is not computed, what is taken
    # is not copied.
    after, finite = jax.lax.cond(goes, taken, lambda: (state, jnp.zeros((), bool)))
    # Too large only because they were scaled, as long as there is something to scale down.
    overflows = loss_is_finite & ~finite & (loss_scale.scale > 1)
    failed = ~(finite | overflows)
    loss_scale = jax.tree.map(
        lambda new, old: jnp.where(failed, old, new),
        adjusted(loss_scale, policy, ~overflows),
        loss_scale,
    )
    signs = {"refused": ~finite, "failed": failed}
    signs = {name: sign.astype(jnp.float32) for name, sign in signs.items()}
    return after.replace(step=state.step + 1, loss_scale=loss_scale), signs


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no float of a tree is a NaN, an infinity, or too large to be squared, bool ().

    A sum of squares, because on a CPU it is the cheapest reduction there is: for 35,000 numbers it
    took 7 µs where ``isfinite`` took 13, on two cores. A gradient of 1e20 is no more use to an
    optimizer than an infinite one.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(all_finite({"a": jnp.ones(3), "n": jnp.int32(1)}))
        True
        >>> bool(all_finite({"a": jnp.array([1.0, jnp.inf])}))
        False
    """
    squares = [
        jnp.sum(jnp.square(wide_float(leaf)))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return functools.reduce(jnp.logical_and, map(jnp.isfinite, squares), jnp.ones((), bool))
