"""Adversarial training: a generator against its judge."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from functorch_kit import metrics, nn
from functorch_kit.train.objectives.parts import apply_named, example_keys
from functorch_kit.train.objectives.weights import example_weight
from functorch_kit.types import Model, Objective, Outcome, wide_float


def adversarial(generator: Model, discriminator: Model, *, latent: int) -> Objective:
    """The judge's cross-entropy plus the generator's (Goodfellow et al., 2014), for one gradient.

    Each term reaches its own part only: the judge learns from made examples without a gradient to
    the generator, and the generator from a judge whose parameters are held still. So one gradient
    of the sum moves both, each to its own end. The generator's term is the non-saturating one.
    Give each part an optimizer of its own by path. The sum of the two says little of progress:
    choose the best step by another metric, or take the last.

    Args:
        generator: from standard normal z (batch, latent) to something like x (batch, ...).
        discriminator: from x to log-odds that it is real, (batch,) or (batch, 1).
        latent: numbers that one made example is made from.

    Returns:
        An objective of batches with ``x`` and optionally ``weight`` (batch,), of params with
        ``generator`` and ``discriminator``, as ``models.gan`` makes them. Its metrics are the two
        terms, ``discriminator_loss`` and ``generator_loss``, and the share of examples that the
        judge tells right, ``real_accuracy`` and ``made_accuracy``.

    Raises:
        ValueError: made examples of another shape than x, or not one judgement for each.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models, nn, train
        >>> generator, judge = nn.dense(5), nn.dense(1, kernel_init=jax.nn.initializers.zeros)
        >>> batch = {"x": jnp.ones((4, 5))}
        >>> params, _ = models.gan(generator, judge, latent=3).init(jax.random.key(0), batch["x"])
        >>> objective = train.adversarial(generator, judge, latent=3)
        >>> outcome = objective(params, (), batch, key=jax.random.key(1), train=True)
        >>> round(float(outcome.loss_sum / outcome.weight), 4)  # 3 log(2): it cannot tell
        2.0794
    """

    def objective(params, model_state, batch, *, key, train) -> Outcome:
        x = batch["x"]
        keys = example_keys(nn.part_key(key, "latent"), x, train=train)
        z = jax.vmap(lambda key: jax.random.normal(key, (latent,), x.dtype))(keys)
        made, model_state = apply_named("generator", generator, params, model_state, z, key, train)
        if made.shape != x.shape:
            raise ValueError(f"adversarial: made examples are {made.shape}, real ones {x.shape}")

        def judge(params, model_state, x, name: str):
            """Log-odds (batch,); each call with randomness of its own."""
            odds, model_state = apply_named(
                "discriminator",
                discriminator,
                params,
                model_state,
                x,
                nn.part_key(key, name),
                train,
            )
            if odds.size != len(x):
                raise ValueError(f"adversarial: of {len(x)} examples the log-odds are {odds.shape}")
            return wide_float(odds.reshape(-1)), model_state

        of_real, model_state = judge(params, model_state, x, "real")
        of_made, model_state = judge(params, model_state, jax.lax.stop_gradient(made), "made")
        # The same judgement once more, which the compiler sees: now the judge holds still.
        still = jax.lax.stop_gradient(params)
        of_made_for_generator, _ = judge(still, model_state, made, "made")
        weight = example_weight(batch, of_real)
        terms = {
            "discriminator_loss": jax.nn.softplus(-of_real) + jax.nn.softplus(of_made),
            "generator_loss": jax.nn.softplus(-of_made_for_generator),
            "real_accuracy": (of_real > 0).astype(weight.dtype),
            "made_accuracy": (of_made < 0).astype(weight.dtype),
        }
        means = {name: metrics.weighted_mean(values, weight) for name, values in terms.items()}
        total = means["discriminator_loss"].total + means["generator_loss"].total
        return Outcome(total, jnp.sum(weight), model_state, means)

    return objective
