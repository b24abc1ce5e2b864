"""The one value that a training run changes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit import program
from functorch_kit.train.average import empty_average
from functorch_kit.train.loss_scale import new_loss_scale
from functorch_kit.train.options import Options
from functorch_kit.train.paths import check_patterns
from functorch_kit.train.trainable import check_trainable, join, split
from functorch_kit.types import HParams, Key, ModelState, Params, PyTree, Spec


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a train step reads and writes.

    Attributes:
        step: number of steps taken, int32 ().
        params: what the optimizer trains.
        model_state: what the model carries from step to step; ``()`` if nothing.
        opt_state: the optax optimizer's state.
        key: the run's PRNG key; step n draws from ``fold_in(key, n)``.
        ema: the parameters' average, see ``Options.ema``; ``()`` without one, as the next.
        loss_scale: dynamic loss scaling, in precisions that need it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> state = TrainState(jnp.int32(0), {"w": jnp.ones(2)}, (), (), jax.random.key(0))
        >>> int(state.replace(step=state.step + 1).step)
        1
    """

    # Any, not Array: transformations rebuild the state from specs, shardings and None as well.
    step: Any
    params: Params
    model_state: ModelState
    opt_state: PyTree
    key: Any
    ema: Any = ()
    loss_scale: Any = ()

    def replace(self, **changes: Any) -> TrainState:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def init_state(
    model: Any,
    optimizer: Any,
    x_spec: Spec,
    *,
    hparams: HParams | None = None,
    seed: int = 0,
    options: Options | None = None,
) -> TrainState:
    """The state before the first step, made by one compiled program.

    Args:
        model: a Model, or a function of the hyperparameters that returns one.
        optimizer: an optax GradientTransformation, or a function of the hyperparameters.
        x_spec: shape and dtype of a batch of inputs.
        hparams: the hyperparameters, by name.
        seed: of parameters and of all randomness in training.
        options: those of the train step.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from functorch_kit import nn, train
        >>> state = train.init_state(
        ...     nn.dense(2), lambda h: optax.sgd(h["learning_rate"]),
        ...     jax.ShapeDtypeStruct((8, 3), jnp.float32), hparams={"learning_rate": 0.1})
        >>> state.params["kernel"].shape, int(state.step)
        ((3, 2), 0)
    """
    policy = (options or Options()).policy
    values, key = as_hparams(hparams, policy.params), jax.random.key(seed)
    init = make_init(model, optimizer, x_spec, options)
    return compiled_init(init, values, key)(values, key)


def compiled_init(
    init: Callable[..., TrainState], hparams: HParams, key: Any, shardings: Any = None
) -> program.Program:
    """An init to be run once: compiled with little optimisation, which takes a third of the time.

    It may capture arrays of any size: foreign weights are a fine start.

    Args:
        init: see ``make_init``.
        hparams: hyperparameters, arrays or specs.
        key: the run's key, or its spec.
        shardings: where the state is made, a tree of them; None for one device.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from functorch_kit import nn
        >>> x_spec = jax.ShapeDtypeStruct((8, 3), jnp.float32)
        >>> init, key = make_init(nn.dense(2), optax.adam(0.1), x_spec), jax.random.key(0)
        >>> compiled_init(init, {}, key)({}, key).params["bias"].tolist()
        [0.0, 0.0]
    """
    options = {"xla_backend_optimization_level": 1}
    return program.compile(
        init,
        hparams,
        key,
        name="init",
        captured_bytes=None,
        compiler_options=options,
        out_shardings=shardings,
    )


def make_init(model: Any, optimizer: Any, x_spec: Spec, options: Options | None = None):
    """The pure function behind ``init_state``: ``(hparams, key) -> TrainState``.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from functorch_kit import nn
        >>> x_spec = jax.ShapeDtypeStruct((8, 3), jnp.float32)
        >>> init = make_init(nn.dense(2), optax.adam(0.1), x_spec)
        >>> jax.eval_shape(init, {}, jax.random.key(0)).params["bias"].shape
        (2,)
    """
    chosen = options or Options()

    def init(hparams: HParams, key: Key) -> TrainState:
        init_key, step_key = jax.random.split(key)
        params, model_state = chosen.policy.kept(resolve(model, hparams).init(init_key, x_spec))
        check_patterns("precision", chosen.policy.keep, params)
        trainable, _ = split(params, chosen.frozen)
        check_trainable(trainable)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=resolve(optimizer, hparams).init(trainable),
            key=step_key,
            ema=() if chosen.ema is None else empty_average(trainable),
            loss_scale=() if chosen.policy.loss_scale is None else new_loss_scale(chosen.policy),
        )

    return init


def as_hparams(hparams: Mapping[str, Any] | None, dtype: Any = None) -> HParams:
    """Hyperparameters as strong scalar arrays, so that a new value is not a new program.

    Args:
        hparams: numbers by name.
        dtype: of all of them, but at least float32: in bfloat16, a decay of 0.999 is 1; if None,
            JAX's default: float32, or float64 where 64 bits are on.

    Example:
        >>> as_hparams({"learning_rate": 1})
        {'learning_rate': Array(1., dtype=float32)}
    """
    dtype = jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)
    dtype = jnp.promote_types(dtype, jnp.float32)
    return {name: jnp.asarray(value, dtype) for name, value in (hparams or {}).items()}


def resolve(value: Any, hparams: HParams) -> Any:
    """A Model, objective or optimizer, from itself or from a function of the hyperparameters.

    Models and optimizers are NamedTuples of functions; an objective takes three positional
    arguments. So a callable with exactly one required positional argument is a function of the
    hyperparameters, and is called with them, inside the trace.

    Example:
        >>> from functorch_kit import nn
        >>> resolve(nn.relu, {}) is nn.relu
        True
        >>> resolve(lambda h: nn.relu if h["a"] else nn.tanh, {"a": True}) is nn.relu
        True
    """
    if isinstance(value, tuple) or not callable(value):
        return value
    required = [
        parameter
        for parameter in inspect.signature(value).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return value(hparams) if len(required) == 1 else value


def evaluation_params(state: TrainState, options: Options) -> Params:
    """The parameters that are evaluated, saved as best and used: see ``Options.evaluate``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> state = TrainState(jnp.int32(0), {"w": jnp.ones(2)}, (), (), jax.random.key(0))
        >>> evaluation_params(state, Options()) is state.params
        True
    """
    if callable(options.evaluate):
        return options.evaluate(state)
    if options.evaluate == "params":
        return state.params
    # Frozen parameters are their own average.
    trainable, fixed = split(state.params, options.frozen)
    average = jax.tree.map(lambda mean, now: mean.astype(now.dtype), state.ema.params(), trainable)
    return join(average, fixed)
