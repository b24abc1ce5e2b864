"""The gradient of a batch's loss: in parts, in another precision, of some parameters only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from functorch_kit import nn, program
from functorch_kit.train.form import slow_in_a_loop
from functorch_kit.train.options import Options, OptionsError
from functorch_kit.train.trainable import frozen_parts, join
from functorch_kit.types import (
    Batch,
    Key,
    ModelState,
    Objective,
    Outcome,
    Params,
    PyTree,
    Spec,
    path_name,
)

Gradient = Callable[[Params, Params, ModelState, Batch, Key, Any], tuple[Params, Outcome]]
"""``(trainable, fixed, model_state, batch, key, loss_scale) -> (gradients, Outcome)``."""


def make_gradient(objective: Objective, options: Options) -> Gradient:
    """The gradient of the loss **sum**, and what the objective says besides.

    Args:
        objective: see ``train.classification``.
        options: its accumulation, precision, remat and frozen paths are used here.

    Returns:
        ``gradient(trainable, fixed, model_state, batch, key, loss_scale)``; gradients are those of
        ``loss_scale`` times the sum, or of the sum where it is None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> gradient = make_gradient(train.regression(nn.dense(1, use_bias=False)), Options())
        >>> batch = {"x": jnp.array([[1.0], [2.0]]), "y": jnp.zeros((2, 1))}
        >>> params = {"kernel": jnp.ones((1, 1))}
        >>> gradients, outcome = gradient(params, None, (), batch, jax.random.key(0), None)
        >>> float(gradients["kernel"][0, 0]), float(outcome.loss_sum)
        (10.0, 5.0)
    """

    def gradient(trainable, fixed, model_state, batch, key, loss_scale):
        def loss_sum(trainable):
            params = options.policy.cast(join(trainable, fixed))
            outcome = _treated(objective, options, params, model_state, batch, key)
            loss = outcome.loss_sum
            return (loss if loss_scale is None else loss * loss_scale), outcome

        return jax.grad(loss_sum, has_aux=True)(trainable)

    return gradient if options.accumulate == 1 else _accumulated(gradient, options.accumulate)


def _treated(objective, options: Options, params, model_state, batch, key) -> Outcome:
    if not (options.remat or options.frozen):
        return objective(params, model_state, batch, key=key, train=True)
    remat, frozen = options.remat, frozen_parts(params, options.frozen)
    with nn.treated(remat=remat, policy=options.saveable, frozen=frozen) as seen:
        outcome = objective(params, model_state, batch, key=key, train=True)
    for pattern in options.remat:
        if pattern not in seen:
            raise OptionsError(f"remat: {pattern!r} names no part of the model")
    return outcome


def _accumulated(gradient: Gradient, parts: int) -> Gradient:
    def accumulated(trainable, fixed, model_state, batch, key, loss_scale):
        def one(model_state, index, micro):
            at = jax.random.fold_in(key, index)
            return gradient(trainable, fixed, model_state, micro, at, loss_scale)

        def body(carry, xs):
            gradients, outcome = carry
            new, latest = one(outcome.model_state, *xs)
            before, after = strong(outcome.model_state), strong(latest.model_state)
            program.check_carry("train_step", "state/model_state", before, after)
            total = jax.tree.map(jnp.add, _sums(outcome), _sums(latest))
            outcome = latest._replace(**dict(zip(_SUMS, total, strict=True)))
            return (jax.tree.map(jnp.add, gradients, new), outcome), None

        micros = _split(batch, parts)
        numbers = jnp.arange(parts, dtype=jnp.uint32)
        first = jax.tree.map(lambda leaf: leaf[0], (numbers, micros))
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, model_state, *first)
        )
        start = zeros[0], zeros[1]._replace(model_state=model_state)
        # A convolution inside a loop is slow on a CPU.
        unroll = parts if slow_in_a_loop(one, model_state, *first) else 1
        return lax.scan(body, start, (numbers, micros), unroll=unroll)[0]

    return accumulated


_SUMS = ("loss_sum", "weight", "metrics")


def _sums(outcome: Outcome) -> tuple[Any, ...]:
    return tuple(getattr(outcome, name) for name in _SUMS)


def strong(tree: PyTree) -> Spec:
    """Shapes and dtypes of what is being traced, numbers of Python included.

    Example:
        >>> strong({"n": 1})
        {'n': ShapeDtypeStruct(shape=(), dtype=int32)}
    """
    types = jax.tree.map(jax.typeof, tree)
    return jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), types)


def _split(batch: Batch, parts: int) -> Batch:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim}

    def split(path, leaf):
        if not leaf.ndim or len(sizes) > 1:
            raise OptionsError(
                f"accumulate is {parts}, but batch/{path_name(path)} of shape {leaf.shape} is not"
                " split as the others are: give every leaf an axis 0 of records"
            )
        if leaf.shape[0] % parts:
            raise OptionsError(
                f"accumulate is {parts}, which does not divide batch/{path_name(path)}"
                f" of shape {leaf.shape}: give a batch size that it divides"
            )
        return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])

    return jax.tree_util.tree_map_with_path(split, batch)
