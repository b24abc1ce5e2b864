"""K networks of one kind as one: initialised apart, trained side by side, asked together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import (
    Batch,
    HParams,
    Key,
    Model,
    ModelState,
    Objective,
    Params,
    PyTree,
    Spec,
    wide_float,
)

Optimizer = optax.GradientTransformation | Callable[[HParams], optax.GradientTransformation]


class Members(NamedTuple):
    """What training changes; every leaf but the step has the members as its first axis.

    Attributes:
        params: of each.
        model_state: of each.
        opt_state: of each.
        keys: of each (members,).
        step: how many steps were taken, shape ().
    """

    params: Params
    model_state: ModelState
    opt_state: PyTree
    keys: Key
    step: Array


class Prediction(NamedTuple):
    """What an ensemble says of a batch.

    Attributes:
        probabilities: the members' mean (batch, classes).
        disagreement: the entropy of that mean less the members' mean entropy, in nats (batch,): 0
            where all say the same, at most the logarithm of the number of members. Where the
            members are each sure of something else it is large; where all are unsure it is not.
        members: the probabilities of each (members, batch, classes).
    """

    probabilities: Float[Array, "batch classes"]
    disagreement: Float[Array, " batch"]
    members: Float[Array, "members batch classes"]


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One model K times; made by ``ensemble``.

    Attributes:
        model: what each member is.
        size: how many there are.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, transforms
        >>> five = transforms.ensemble(nn.dense(3), 5)
        >>> params, state = five.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> five.apply(params, state, jnp.ones((2, 4)))[0].shape
        (5, 2, 3)
    """

    model: Model
    size: int

    def init(self, key: Key, x_spec: Spec) -> tuple[Params, ModelState]:
        """Each member's own initial values, stacked; that of member i comes from the i-th key."""
        keys = jax.random.split(key, self.size)
        return jax.vmap(lambda key: self.model.init(key, x_spec))(keys)

    def apply(
        self,
        params: Params,
        model_state: ModelState,
        x: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
        own_x: bool = False,
    ) -> tuple[PyTree, ModelState]:
        """The outputs of all members (members, batch, …).

        Args:
            params: stacked.
            model_state: stacked.
            x: for all; or, with ``own_x``, one for each, stacked.
            key: of which each member gets its own; None if nothing is random.
            train: whether this is training.
            own_x: whether x has the members as its first axis.
        """

        def one(params: Params, state: ModelState, x: PyTree, key: Key | None) -> Any:
            return self.model.apply(params, state, x, key=key, train=train)

        keys = None if key is None else jax.random.split(key, self.size)
        return jax.vmap(one, (0, 0, 0 if own_x else None, None if key is None else 0))(
            params, model_state, x, keys
        )

    def start(
        self, key: Key, x_spec: Spec, optimizer: Optimizer, hparams: HParams | None = None
    ) -> Members:
        """What training begins with.

        Args:
            key: of initial values and of all randomness in training.
            x_spec: shape of a batch, for one member.
            optimizer: an optax optimizer, or a function of the hyperparameters.
            hparams: see ``train_step``.
        """
        init_key, train_key = jax.random.split(key)
        params, model_state = self.init(init_key, x_spec)
        hparams = hparams or {}
        opt_state = jax.vmap(
            lambda hparams, params: _resolved(optimizer, hparams).init(params),
            (self._axes(hparams), 0),
        )(hparams, params)
        keys = jax.random.split(train_key, self.size)
        return Members(params, model_state, opt_state, keys, jnp.zeros((), jnp.int32))

    def train_step(
        self, objective: Objective, optimizer: Optimizer, *, own_batches: bool = False
    ) -> Callable[..., tuple[Members, Float[Array, " members"]]]:
        """One step of every member, each as it would have been alone.

        Args:
            objective: ``objective(params, model_state, batch, *, key, train) -> Outcome``, as
                ``train.classification`` makes it.
            optimizer: an optax optimizer, or a function of the hyperparameters.
            own_batches: whether a batch's leaves have the members as their first axis.

        Returns:
            ``step(hparams, members, batch) -> (members, losses)`` with mean losses (members,). A
            hyperparameter of shape () is that of all, one of shape (members,) is each one's own.
        """

        def step(
            hparams: HParams, members: Members, batch: Batch
        ) -> tuple[Members, Float[Array, " members"]]:
            def one(hparams, params, model_state, opt_state, key, batch):
                def mean(params: Params) -> tuple[Array, ModelState]:
                    outcome = objective(
                        params,
                        model_state,
                        batch,
                        key=jax.random.fold_in(key, members.step),
                        train=True,
                    )
                    return outcome.loss_sum / outcome.weight, outcome.model_state

                (loss, after), slope = jax.value_and_grad(mean, has_aux=True)(params)
                chosen = _resolved(optimizer, hparams)
                updates, opt_state = chosen.update(slope, opt_state, params)
                return optax.apply_updates(params, updates), after, opt_state, loss

            axes = (self._axes(hparams), 0, 0, 0, 0, 0 if own_batches else None)
            params, model_state, opt_state, losses = jax.vmap(one, axes)(
                hparams,
                members.params,
                members.model_state,
                members.opt_state,
                members.keys,
                batch,
            )
            after = Members(params, model_state, opt_state, members.keys, members.step + 1)
            return after, losses

        return step

    def predict(self, params: Params, model_state: ModelState, x: PyTree) -> Prediction:
        """What the members say together, of a model whose outputs are logits (batch, classes).

        Lakshminarayanan, Pritzel and Blundell, 2017.
        """
        logits, _ = self.apply(params, model_state, x)
        logs = jax.nn.log_softmax(wide_float(logits))
        probabilities = jnp.exp(logs)
        mean = jnp.mean(probabilities, 0)
        each = -jnp.sum(probabilities * logs, -1)
        together = -jnp.sum(jax.scipy.special.xlogy(mean, mean), -1)
        # Rounding can leave a little less than nothing.
        disagreement = jnp.maximum(together - jnp.mean(each, 0), 0)
        return Prediction(mean, disagreement, probabilities)

    def _axes(self, hparams: HParams) -> dict[str, int | None]:
        axes: dict[str, int | None] = {}
        for name, value in hparams.items():
            shape = jnp.shape(value)
            if shape not in ((), (self.size,)):
                raise TransformError(
                    f"hparams: {name} has shape {shape}: give one for all, or one for each of"
                    f" {self.size} members"
                )
            axes[name] = 0 if shape else None
        return axes


def ensemble(model: Model, size: int) -> Ensemble:
    """One model as several that differ in initial values, randomness, and what else is asked for.

    Args:
        model: what each member is.
        size: how many members.

    Returns:
        An ``Ensemble``, with ``init``, ``apply``, ``start``, ``train_step`` and ``predict``.

    Raises:
        TransformError: fewer than one member.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn, transforms
        >>> five = transforms.ensemble(nn.dense(3), 5)
        >>> params, state = five.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> said = five.predict(params, state, jnp.ones((2, 4)))
        >>> said.probabilities.shape, said.disagreement.shape
        ((2, 3), (2,))
    """
    if size < 1:
        raise TransformError(f"ensemble: {size} members: give a number from 1 up")
    return Ensemble(model, size)


def _resolved(optimizer: Optimizer, hparams: HParams) -> optax.GradientTransformation:
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    return optimizer(hparams)
