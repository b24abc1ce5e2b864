"""The train step and the evaluation step: pure functions, whole in view."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from functorch_kit import program
from functorch_kit.metrics import Mean
from functorch_kit.train.gradient import make_gradient, strong
from functorch_kit.train.loss_scale import all_finite, unless_it_overflows
from functorch_kit.train.options import Options
from functorch_kit.train.state import TrainState, resolve
from functorch_kit.train.trainable import join, split
from functorch_kit.types import Batch, HParams, ModelState, Params

Metrics = dict[str, Any]
TrainStep = Callable[[HParams, TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[HParams, Params, ModelState, Batch], Metrics]


def make_train_step(objective: Any, optimizer: Any, options: Options | None = None) -> TrainStep:
    """One step of gradient descent as a pure function.

    Args:
        objective: ``objective(params, model_state, batch, *, key, train) -> Outcome``, or a
            function of the hyperparameters that returns one.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters. Those that
            take them get the mean loss as ``value``, its gradient as ``grad``, and both as
            functions of the parameters, ``value_fn`` and ``grad_fn``.
        options: what else a step does; the state must have been made with the same.

    Returns:
        ``train_step(hparams, state, batch) -> (state, metrics)``; ``metrics["loss"]`` is the
        batch's loss as a ``Mean``, the objective's own metrics follow.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from functorch_kit import nn, train
        >>> model, sgd = nn.dense(1), lambda h: optax.sgd(h["learning_rate"])
        >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
        >>> hparams = train.as_hparams({"learning_rate": 0.1})
        >>> state = train.init_state(model, sgd, batch["x"], hparams=hparams)
        >>> step = jax.jit(train.make_train_step(train.regression(model), sgd))
        >>> losses = []
        >>> for _ in range(3):
        ...     state, metrics = step(hparams, state, batch)
        ...     losses.append(float(metrics["loss"].compute()))
        >>> losses[0] > losses[1] > losses[2]
        True
    """
    chosen = options or Options()

    def train_step(hparams: HParams, state: TrainState, batch: Batch):
        gradient = make_gradient(resolve(objective, hparams), chosen)
        transformation = resolve(optimizer, hparams)
        trainable, fixed = split(state.params, chosen.frozen)
        key = jax.random.fold_in(state.key, state.step)
        loss_scale = state.loss_scale.scale if chosen.policy.loss_scale is not None else None

        def mean(trainable):
            sums, outcome = gradient(trainable, fixed, state.model_state, batch, key, loss_scale)
            # The sum is divided by its weight once, here; a batch of padding alone has gradient
            # zero (which does not keep an optimizer with momentum or decay from moving).
            weight = outcome.weight
            scale = jnp.where(weight > 0, 1 / weight, 0)
            if loss_scale is not None:
                scale = scale / loss_scale.astype(scale.dtype)
            return jax.tree.map(lambda g: g * scale.astype(g.dtype), sums), outcome

        gradients, outcome = mean(trainable)
        loss = Mean(outcome.loss_sum, outcome.weight)

        asked_again: list[bool] = []

        def gradient_at(params: Params, *_: Any) -> Params:
            sums = mean(params)[0]
            if loss_scale is None:
                return sums
            asked_again.append(True)
            # A NaN stays one in whatever is made of it; an infinity may be clipped or divided by.
            fits = all_finite(sums)
            return jax.tree.map(lambda g: jnp.where(fits, g, jnp.nan), sums)

        def taken() -> TrainState:
            further = {
                "value": loss.compute(),
                "grad": gradients,
                # A line search hands it all further arguments, and refuses those it does not name.
                "value_fn": lambda params, grad_fn=None: _mean_loss(mean(params)[1]),
                "grad_fn": gradient_at,
            }
            updates, opt_state = transformation.update(
                gradients, state.opt_state, trainable, **_accepted(transformation, further)
            )
            updated = optax.apply_updates(trainable, updates)
            ema = state.ema
            if chosen.ema is not None:
                decay = chosen.ema(hparams) if callable(chosen.ema) else chosen.ema
                ema = ema.updated(updated, decay)
            return state.replace(
                step=state.step + 1,
                params=join(updated, fixed),
                model_state=outcome.model_state,
                opt_state=opt_state,
                ema=ema,
            )

        metrics = {"loss": loss, **outcome.metrics}
        if chosen.gradient_norm:
            norm = optax.tree.norm(gradients)
            metrics["gradient_norm"] = Mean(norm, jnp.ones_like(norm))
        if loss_scale is None:
            return taken(), metrics

        def tried() -> tuple[TrainState, jax.Array]:
            after = taken()
            # lax.cond would refuse it as well, but would not name the leaf.
            program.check_carry("train_step", "state", strong(state), strong(after))
            if not asked_again:
                return after, jnp.ones((), bool)
            finite = all_finite(after.params)
            return jax.lax.cond(finite, lambda: after, lambda: state), finite

        after, signs = unless_it_overflows(tried, state, gradients, outcome.loss_sum, chosen.policy)
        return after, metrics | {
            name: Mean(sign, jnp.ones_like(sign)) for name, sign in signs.items()
        }

    return train_step


def _accepted(
    transformation: optax.GradientTransformation, further: dict[str, Any]
) -> dict[str, Any]:
    """Those extra arguments that an optimizer takes: some take a few by name, and no more."""
    parameters = inspect.signature(transformation.update).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return further
    return {name: value for name, value in further.items() if name in parameters}


def _mean_loss(outcome: Any) -> Any:
    return outcome.loss_sum / outcome.weight


def make_eval_step(objective: Any, options: Options | None = None) -> EvalStep:
    """What one batch says of fixed parameters, as a pure function.

    Args:
        objective: as for ``make_train_step``.
        options: of these, the precision.

    Returns:
        ``eval_step(hparams, params, model_state, batch) -> metrics``, summable over batches.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn, train
        >>> step = train.make_eval_step(train.classification(nn.identity))
        >>> batch = {"x": jnp.array([[0.0, 5.0]]), "y": jnp.array([1])}
        >>> float(step({}, {}, (), batch)["accuracy"].compute())
        1.0
    """
    policy = (options or Options()).policy

    def eval_step(hparams: HParams, params: Params, model_state: ModelState, batch: Batch):
        params = policy.cast(params)
        outcome = resolve(objective, hparams)(params, model_state, batch, key=None, train=False)
        return {"loss": Mean(outcome.loss_sum, outcome.weight), **outcome.metrics}

    return eval_step
