"""Contrastive learning: two views of an example are alike, views of two examples are not."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from functorch_kit import losses, metrics
from functorch_kit.train.objectives.parts import example_keys
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Key, Model, Objective, Outcome, PyTree


def contrastive(
    model: Model,
    *,
    augment: Callable[[Key, PyTree], PyTree],
    temperature: float | jax.Array = 0.1,
) -> Objective:
    """How hard it is to find an example's other view among all views in the batch (SimCLR).

    **Examples are compared within the batch that the objective is given.** So accumulation changes
    what is learnt: four micro-batches of 64 give each view 126 negatives, not the 510 that a batch
    of 256 does, and their sum is another function than the loss of the whole. The same holds for
    an evaluation with another batch size.

    Args:
        model: from ``batch["x"]`` to vectors (batch, features); both views pass through it in one
            call, so that BatchNorm sees them together.
        augment: ``augment(key, example) -> view`` of one example, without the batch axis; two are
            made of each example, in evaluation from keys that follow from the example.
        temperature: see ``losses.nt_xent``; may be traced.

    Returns:
        An objective of batches with ``x`` and optionally ``weight`` (batch,); an example of weight
        0 is no negative either. Its metric ``found`` is the share of views whose partner was
        nearest.

    Raises:
        ValueError: outputs that are not one vector for each example.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> def shifted(key, x):
        ...     return x + 0.01 * jax.random.normal(key, x.shape)
        >>> objective = train.contrastive(nn.identity, augment=shifted)
        >>> outcome = objective({}, (), {"x": jnp.eye(3)}, key=jax.random.key(0), train=True)
        >>> float(outcome.metrics["found"].compute())
        1.0
    """

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        x = batch["x"]
        view_key = None if key is None else jax.random.fold_in(key, 0)
        keys = example_keys(view_key, x, train=train)
        one, other = (
            jax.vmap(augment)(jax.vmap(jax.random.fold_in, (0, None))(keys, view), x)
            for view in (0, 1)
        )
        views = jax.tree.map(lambda *pair: jnp.concatenate(pair), one, other)
        vectors, model_state = model.apply(params, model_state, views, key=key, train=train)
        count = keys.shape[0]
        if vectors.ndim != 2 or len(vectors) != 2 * count:
            raise ValueError(f"contrastive: of {2 * count} views the outputs are {vectors.shape}")
        weight = example_weight(batch, vectors[:count, 0])
        loss, found = losses.nt_xent(
            vectors[:count], vectors[count:], temperature=temperature, present=weight
        )
        mean = metrics.weighted_mean(loss, weight)
        values = {"found": metrics.weighted_mean(found, weight)}
        return Outcome(mean.total, mean.weight, model_state, values)

    return objective
