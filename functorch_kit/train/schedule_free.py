"""Schedule-free optimizers, and the parameters that they evaluate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from functorch_kit.errors import UserError
from functorch_kit.types import Params, PyTree


def schedule_free_sgd(
    learning_rate: Any = 1.0,
    *,
    b1: Any = 0.9,
    weight_decay: Any | None = None,
    weight_lr_power: Any = 2.0,
    mask: Callable[[Params], PyTree] | None = None,
    last: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD that needs no schedule (Defazio et al., 2024): it evaluates an average of its iterates.

    As ``optax.contrib.schedule_free_sgd``, with a mask and with any schedule (a warm-up, say).

    Args:
        learning_rate: size of a step.
        b1: share of the average in the point where gradients are taken, above 0.
        weight_decay: decay of the weights.
        weight_lr_power: how much less a step of a small learning rate counts in the average.
        mask: what weight decay is for, see ``paths.decay_mask``.
        last: applied to the inner optimizer's updates, such as ``paths.scale_by_path``.

    Returns:
        The transformation; evaluate the parameters of ``schedule_free_params``.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = schedule_free_sgd(0.5)
        >>> state = optimizer.init(jnp.ones(1))
        >>> update, _ = optimizer.update(jnp.ones(1), state, jnp.ones(1))
        >>> update.tolist()
        [-0.5]
    """
    decay = [] if weight_decay is None else [optax.add_decayed_weights(weight_decay, mask)]
    base = optax.chain(*decay, optax.sgd(learning_rate), last or optax.identity())
    return contrib.schedule_free(base, learning_rate, b1=b1, weight_lr_power=weight_lr_power)


def schedule_free_adamw(
    learning_rate: Any = 0.0025,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
    weight_lr_power: Any = 2.0,
    mask: Callable[[Params], PyTree] | None = None,
    last: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW that needs no schedule (Defazio et al., 2024); see ``schedule_free_sgd``.

    Args:
        learning_rate: size of a step.
        b1: share of the average in the point where gradients are taken, above 0.
        b2: decay of the second moment.
        eps: added to the denominator.
        weight_decay: decay of the weights.
        weight_lr_power: how much less a step of a small learning rate counts in the average.
        mask: what weight decay is for, see ``paths.decay_mask``.
        last: applied to the inner optimizer's updates, such as ``paths.scale_by_path``.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = schedule_free_adamw(0.5)
        >>> state = optimizer.init(jnp.ones(1))
        >>> update, _ = optimizer.update(jnp.ones(1), state, jnp.ones(1))
        >>> round(float(update[0]), 4)
        -0.5
    """
    base = optax.chain(
        optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
        last or optax.identity(),
    )
    return contrib.schedule_free(base, learning_rate, b1=b1, weight_lr_power=weight_lr_power)


def schedule_free_params(state: Any) -> Params:
    """The averaged parameters of a schedule-free optimizer, which are the ones to evaluate.

    Wherever the optimizer's state lies, in a chain or a partition.

    Args:
        state: a TrainState.

    Raises:
        UserError: its optimizer is not schedule-free.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> optimizer = schedule_free_sgd(0.5)
        >>> state = train.init_state(nn.dense(1), optimizer, jnp.ones((1, 2)))
        >>> schedule_free_params(state)["kernel"].shape
        (2, 1)
    """

    def is_free(node: Any) -> bool:
        return isinstance(node, contrib.ScheduleFreeState)

    found = [leaf for leaf in jax.tree.leaves(state.opt_state, is_leaf=is_free) if is_free(leaf)]
    if len(found) != 1:
        raise UserError(
            f"schedule_free_params: the optimizer's state holds {len(found)} schedule-free ones:"
            " it is for an optimizer with one"
        )
    (free,) = found
    # It never saw parameters that are frozen or another optimizer's: they have no average.
    averaged = free._replace(z=jax.tree.map(_seen, free.z, is_leaf=_unseen))
    params = jax.tree.map(
        lambda z, now: None if z is None else now, averaged.z, state.params, is_leaf=_unseen
    )
    average = contrib.schedule_free_eval_params(averaged, params)
    return jax.tree.map(
        lambda mean, now: now if mean is None else mean, average, state.params, is_leaf=_unseen
    )


def _unseen(node: Any) -> bool:
    return node is None or isinstance(node, optax.MaskedNode)


def _seen(node: Any) -> Any:
    return None if _unseen(node) else node
