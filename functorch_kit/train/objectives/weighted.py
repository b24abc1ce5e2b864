"""Several objectives at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from functorch_kit import nn
from functorch_kit.metrics import Mean
from functorch_kit.types import Objective, Outcome


def weighted(**parts: tuple[float | jax.Array, Objective]) -> Objective:
    """The sum of several objectives over the same parameters, each times a factor.

    Sums are added, and divided by the weight of the first: so parts that count different things
    (examples here, tokens or hidden pixels there) are all reckoned for each thing that the first
    counts, and micro-batches still add up.

    Args:
        **parts: name -> (factor, objective); a factor may be traced.

    Returns:
        An objective of what its parts take together. The parts see the batch one after another,
        each with the model state that the one before left. Its metrics are theirs, under
        ``<name>_loss`` (without the factor) and ``<name>_<metric>``.

    Raises:
        ValueError: no parts.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import losses, nn, train
        >>> objective = train.weighted(
        ...     squares=(1.0, train.regression(nn.identity)),
        ...     sizes=(0.5, train.regression(nn.identity, loss=losses.absolute_error)))
        >>> batch = {"x": jnp.array([[4.0]]), "y": jnp.array([[0.0]])}
        >>> outcome = objective({}, (), batch, key=None, train=True)
        >>> float(outcome.loss_sum), float(outcome.metrics["sizes_loss"].compute())
        (18.0, 4.0)
    """
    if not parts:
        raise ValueError("weighted: give at least one part, name=(factor, objective)")

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        outcomes: dict[str, Outcome] = {}
        for name, (_, part) in parts.items():
            part_key = nn.part_key(key, name)
            outcomes[name] = part(params, model_state, batch, key=part_key, train=train)
            model_state = outcomes[name].model_state
        first = next(iter(outcomes.values()))
        total, values = jnp.zeros_like(first.loss_sum), {}
        for name, outcome in outcomes.items():
            total += jnp.asarray(parts[name][0], total.dtype) * outcome.loss_sum
            values[f"{name}_loss"] = Mean(outcome.loss_sum, outcome.weight)
            values |= {f"{name}_{metric}": value for metric, value in outcome.metrics.items()}
        return Outcome(total, first.weight, model_state, values)

    return objective
