"""The train step against the same step written out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import nn
from functorch_kit.train import (
    TrainState,
    as_hparams,
    classification,
    init_state,
    make_eval_step,
    make_train_step,
    regression,
    resolve,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
X, W0, B0 = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(4, 3)), RANDOM.normal(size=3)
LABELS = np.array([0, 1, 2, 2, 1, 0])
WEIGHT = np.array([1.0, 2.0, 1.0, 0.5, 0.0, 1.0])
MODEL = nn.dense(3)


def _state(optimizer, dtype=jnp.float64) -> TrainState:
    params = {"kernel": jnp.asarray(W0, dtype), "bias": jnp.asarray(B0, dtype)}
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optimizer.init(params)
    return TrainState(jnp.int32(0), params, (), opt_state, jax.random.key(0))


def _batch(dtype=jnp.float64) -> dict:
    return {
        "x": jnp.asarray(X, dtype),
        "y": jnp.asarray(LABELS),
        "weight": jnp.asarray(WEIGHT, dtype),
    }


def _gradient(w, b):
    """Of the weighted mean cross-entropy of a linear classifier, and its value."""
    powers = np.exp(X @ w + b)
    p = powers / powers.sum(1, keepdims=True)
    loss = -(WEIGHT * np.log(p[np.arange(6), LABELS])).sum() / WEIGHT.sum()
    delta = (p - np.eye(3)[LABELS]) * WEIGHT[:, None] / WEIGHT.sum()
    return X.T @ delta, delta.sum(0), loss


def _run(optimizer, steps: int, maybe_jit, hparams=None):
    step = maybe_jit(make_train_step(classification(MODEL), optimizer))
    state, losses = _state(resolve(optimizer, hparams or {})), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            state, metrics = step(hparams or {}, state, _batch())
            losses.append(float(metrics["loss"].compute()))
    return state, losses


def test_ten_steps_of_gradient_descent_are_those_written_out(maybe_jit, x64):
    state, losses = _run(optax.sgd(0.1), 10, maybe_jit)
    w, b, expected = W0, B0, []
    for _ in range(10):
        dw, db, loss = _gradient(w, b)
        w, b = w - 0.1 * dw, b - 0.1 * db
        expected.append(loss)
    np.testing.assert_allclose(state.params["kernel"], w, rtol=0, atol=1e-13)
    np.testing.assert_allclose(state.params["bias"], b, rtol=0, atol=1e-13)
    np.testing.assert_allclose(losses, expected, rtol=1e-13)
    assert int(state.step) == 10


def test_ten_steps_of_adam_are_those_written_out(maybe_jit, x64):
    state, _ = _run(optax.adam(0.01), 10, maybe_jit)
    theta = [W0, B0]
    first, second = [np.zeros_like(t) for t in theta], [np.zeros_like(t) for t in theta]
    for n in range(1, 11):
        for i, g in enumerate(_gradient(*theta)[:2]):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
        theta = [
            t - 0.01 * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
            for t, m, v in zip(theta, first, second, strict=True)
        ]
    np.testing.assert_allclose(state.params["kernel"], theta[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.params["bias"], theta[1], rtol=0, atol=1e-12)


def test_the_numbers_of_one_step_do_not_move():
    """Golden numbers of one step of SGD: a refactoring must not move them.

    They change only with the initialiser, the derivation of keys or the loss; whoever changes one
    of these on purpose says so in the change log, and prints the new ones here.
    """
    model = nn.serial(hidden=nn.dense(4), act=nn.tanh, drop=nn.dropout(0.5), head=nn.dense(2))
    x = jnp.linspace(-1, 1, 15).reshape(5, 3)
    state = init_state(model, optax.sgd(0.5), x, seed=0)
    step = jax.jit(make_train_step(classification(model), optax.sgd(0.5)))
    state, metrics = step({}, state, {"x": x, "y": jnp.array([0, 1, 0, 1, 1])})
    found = [float(metrics["loss"].compute()), *map(float, state.params["head"]["bias"])]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-5)


GOLDEN = [0.5699877, -0.0608659, 0.0608659]


def test_two_learning_rates_share_one_trace():
    traces = []

    def optimizer(hparams):
        traces.append(hparams)
        return optax.sgd(hparams["learning_rate"])

    step = jax.jit(make_train_step(classification(MODEL), optimizer))
    state = _state(optax.sgd(0.1), jnp.float32)
    moved = []
    for rate in (0.1, 0.2):
        after, _ = step(as_hparams({"learning_rate": rate}), state, _batch(jnp.float32))
        moved.append(np.asarray(after.params["bias"] - state.params["bias"]))
    assert len(traces) == 1
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-4)


def test_model_and_objective_may_be_functions_of_the_hyperparameters():
    def objective(hparams):
        return classification(
            nn.serial(d=MODEL, drop=nn.dropout(hparams["rate"])),
            label_smoothing=hparams["smoothing"],
        )

    step = jax.jit(make_train_step(objective, optax.sgd(0.1)))
    params = {"d": _state(optax.sgd(0.1), jnp.float32).params}
    state = TrainState(jnp.int32(0), params, (), optax.sgd(0.1).init(params), jax.random.key(0))
    losses = []
    for rate, smoothing in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)):
        hparams = as_hparams({"rate": rate, "smoothing": smoothing})
        _, metrics = step(hparams, state, _batch(jnp.float32))
        losses.append(float(metrics["loss"].compute()))
    assert len(set(losses)) == 3
    assert losses[0] == pytest.approx(_gradient(W0, B0)[2], rel=1e-5)


def test_a_batch_of_padding_alone_moves_nothing(maybe_jit):
    batch = {**_batch(jnp.float32), "weight": jnp.zeros(6)}
    state = _state(optax.sgd(0.1), jnp.float32)
    after, metrics = maybe_jit(make_train_step(classification(MODEL), optax.sgd(0.1)))(
        {}, state, batch
    )
    assert float(metrics["loss"].weight) == 0
    for new, old in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(new, old)


def test_each_step_draws_from_a_key_of_its_own_and_the_runs_key_stays():
    model = nn.dropout(0.5)
    seen = []

    def objective(params, model_state, batch, *, key, train):
        y, _ = model.apply({}, (), jnp.ones(64), key=key, train=train)
        seen.append(np.asarray(y))
        batch = {"x": batch["x"] * params["w"], "y": batch["y"]}
        return regression(nn.identity)({}, (), batch, key=key, train=train)

    params = {"w": jnp.ones(())}
    sgd = optax.sgd(0.1)
    state = TrainState(jnp.int32(0), params, (), sgd.init(params), jax.random.key(5))
    step = make_train_step(objective, sgd)
    batch = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1))}
    one, _ = step({}, state, batch)
    two, _ = step({}, one, batch)
    step({}, state, batch)
    assert (seen[0] != seen[1]).any()
    assert (seen[0] == seen[2]).all()
    assert two.key == state.key
    assert int(two.step) == 2


def test_evaluation_reads_the_running_statistics_that_training_wrote():
    model = nn.serial(norm=nn.batch_norm(momentum=0.0), head=nn.dense(3))
    state = init_state(model, optax.sgd(0.1), _batch(jnp.float32)["x"])
    step = jax.jit(make_train_step(classification(model), optax.sgd(0.1)))
    state, _ = step({}, state, _batch(jnp.float32))
    np.testing.assert_allclose(state.model_state["norm"]["mean"], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.model_state["norm"]["var"], X.var(0, ddof=1), rtol=1e-5)
    evaluate = jax.jit(make_eval_step(classification(model)))
    one, other = (
        evaluate({}, state.params, statistics, _batch(jnp.float32))["loss"].compute()
        for statistics in (state.model_state, jax.tree.map(jnp.ones_like, state.model_state))
    )
    assert float(one) != float(other)


def test_a_seed_fixes_the_first_state_and_another_is_another():
    spec = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    one, same, other = (init_state(MODEL, optax.adam(0.1), spec, seed=seed) for seed in (3, 3, 4))
    assert (one.params["kernel"] == same.params["kernel"]).all()
    assert (one.params["kernel"] != other.params["kernel"]).all()
    assert one.key == same.key
    assert one.key != other.key


def test_hyperparameters_are_strong_scalars():
    hparams = as_hparams({"a": 1, "b": 0.5})
    assert {leaf.dtype for leaf in hparams.values()} == {jnp.dtype("float32")}
    assert not any(leaf.weak_type for leaf in hparams.values())
    assert as_hparams(None) == {}


def test_only_functions_of_the_hyperparameters_are_called_with_them():
    assert resolve(MODEL, {"a": 1}) is MODEL
    optimizer = optax.sgd(0.1)
    assert resolve(optimizer, {"a": 1}) is optimizer
    objective = classification(MODEL)
    assert resolve(objective, {"a": 1}) is objective
    assert resolve(lambda hparams: hparams["a"], {"a": 1}) == 1
