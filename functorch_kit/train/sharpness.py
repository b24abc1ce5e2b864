"""Sharpness-aware minimisation, as a part of any optimizer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from functorch_kit.errors import UserError
from functorch_kit.types import PyTree


def sam(
    optimizer: optax.GradientTransformation, radius: Any = 0.05, *, every_other_step: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al., 2021) with any optimizer.

    The gradient is taken again at the worst point near the parameters, ``radius`` along the
    gradient, and the optimizer uses that one. A step of the train step is a whole step of SAM and
    takes two gradients of one batch; BatchNorm's statistics are those of the first. (optax's own
    ``sam`` divides by the gradient's norm even where it is 0; this one stays where it is.)

    Args:
        optimizer: what makes the step.
        radius: distance of the worst point.
        every_other_step: spend a batch, and a step, on the way to the worst point instead of a
            second gradient.

    Returns:
        A transformation that takes ``grad_fn``, which the train step passes.

    Example:
        >>> sharp = sam(optax.sgd(0.1), radius=0.5)
        >>> weight = jnp.array([1.0])
        >>> gradient = jax.grad(lambda w: (w**2).sum())  # 2 at the weight, 3 at 1.5
        >>> update, _ = sharp.update(
        ...     gradient(weight), sharp.init(weight), weight, grad_fn=gradient)
        >>> round(float(update[0]), 4)
        -0.3
    """
    worst = optax.chain(optax.stateless(_unit), optax.sgd(radius))
    inner = contrib.sam(optimizer, worst, opaque_mode=not every_other_step)

    def update(updates: PyTree, state: Any, params: Any = None, *, grad_fn: Any = None, **_: Any):
        if every_other_step:
            return inner.update(updates, state, params)
        if grad_fn is None:
            raise UserError(
                "sam: the step passes no grad_fn: pass grad_fn=<function of the parameters>,"
                " or give every_other_step=True"
            )
        return inner.update(updates, state, params, grad_fn=lambda at, _: grad_fn(at))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _unit(updates: PyTree, params: PyTree) -> PyTree:
    norm = optax.tree.norm(updates)
    scale = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates)
