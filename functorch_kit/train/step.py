"""The train step and the evaluation step: pure functions, whole in view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from functorch_kit.metrics import Mean
from functorch_kit.train.state import TrainState, resolve
from functorch_kit.types import Batch, HParams, ModelState, Params

Metrics = dict[str, Any]
TrainStep = Callable[[HParams, TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep = Callable[[HParams, Params, ModelState, Batch], Metrics]


def make_train_step(objective: Any, optimizer: Any) -> TrainStep:
    """One step of gradient descent as a pure function.

    Args:
        objective: ``objective(params, model_state, batch, *, key, train) -> Outcome``, or a
            function of the hyperparameters that returns one.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters.

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

    def train_step(hparams: HParams, state: TrainState, batch: Batch):
        objective_, optimizer_ = resolve(objective, hparams), resolve(optimizer, hparams)
        key = jax.random.fold_in(state.key, state.step)

        def loss_sum(params):
            outcome = objective_(params, state.model_state, batch, key=key, train=True)
            return outcome.loss_sum, outcome

        gradients, outcome = jax.grad(loss_sum, has_aux=True)(state.params)
        # The sum is divided by its weight once, here; a batch of padding alone has gradient zero
        # (which does not keep an optimizer with momentum or weight decay from moving).
        scale = jnp.where(outcome.weight > 0, 1 / outcome.weight, 0)
        gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
        updates, opt_state = optimizer_.update(gradients, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=outcome.model_state,
            opt_state=opt_state,
        )
        return state, {"loss": Mean(outcome.loss_sum, outcome.weight), **outcome.metrics}

    return train_step


def make_eval_step(objective: Any) -> EvalStep:
    """What one batch says of fixed parameters, as a pure function.

    Args:
        objective: as for ``make_train_step``.

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

    def eval_step(hparams: HParams, params: Params, model_state: ModelState, batch: Batch):
        outcome = resolve(objective, hparams)(params, model_state, batch, key=None, train=False)
        return {"loss": Mean(outcome.loss_sum, outcome.weight), **outcome.metrics}

    return eval_step
