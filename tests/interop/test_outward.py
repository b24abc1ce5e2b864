"""A Model inside the code of Linen, NNX and Equinox: the same numbers, trained by their means."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import interop, nn
from functorch_kit.types import Model

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = jnp.asarray(np.random.default_rng(0).normal(0.5, size=(8, 4)), jnp.float32)
Y = (X[:, :1] > 0.5).astype(jnp.float32)
MODEL = nn.serial(hidden=nn.dense(6), norm=nn.batch_norm(), act=nn.relu, drop=nn.dropout(0.5))


def near(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def loss_of(y: Any) -> Any:
    return jnp.mean((y - Y) ** 2)


def test_inside_linen_it_has_its_own_params_and_trains():
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Whole(linen.Module):
        @linen.compact
        def __call__(self, x: Any, *, train: bool = False) -> Any:
            x = interop.to_linen(MODEL, name="body")(x, train=train)
            return linen.Dense(1)(x)

    whole = Whole()
    variables = whole.init(jax.random.key(0), X)
    params, state = variables["params"], variables["model_state"]
    assert sorted(params["body"]) == ["hidden", "norm"]
    assert state["body"]["norm"]["mean"].tolist() == [0.0] * 6
    body = interop.to_linen(MODEL)
    own = {"params": params["body"], "model_state": state["body"]}
    near(body.apply(own, X), MODEL.apply(params["body"], state["body"], X)[0])

    @jax.jit
    def step(params: Any, state: Any, key: Any) -> Any:
        def loss(params: Any) -> Any:
            y, after = whole.apply(
                {"params": params, "model_state": state}, X, train=True,
                rngs={"dropout": key}, mutable=["model_state"],
            )  # fmt: skip
            return loss_of(y), after["model_state"]

        (value, state), slope = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), state

    before = params["body"]["hidden"]["kernel"]
    _, after, moved = step(params, state, jax.random.key(1))
    mean = (X @ np.asarray(before)).mean(0)
    np.testing.assert_allclose(moved["body"]["norm"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(after["body"]["hidden"]["kernel"], before)
    losses = []
    for number in range(30):
        value, params, state = step(params, state, jax.random.key(number))
        losses.append(float(value))
    assert losses[-1] < losses[0]


def test_linen_in_a_model_in_linen_changes_nothing():
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    module = interop.to_linen(interop.from_linen(linen.Dense(3)))
    variables = module.init(jax.random.key(0), X)
    near(module.apply(variables, X), linen.Dense(3).apply(variables, X))


def test_params_that_are_no_dict_are_refused_by_linen_in_one_line():
    pytest.importorskip("flax.linen", reason="flax is not installed")
    model = Model(lambda key, x_spec: (jnp.ones(2), ()), lambda p, s, x, **_: (x, s))
    with pytest.raises(interop.InteropError, match=": give a model with a dict"):
        interop.to_linen(model).init(jax.random.key(0), X)


def test_inside_nnx_it_trains_and_its_modes_are_those_of_the_whole():
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Whole(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.body = interop.to_nnx(MODEL, jax.ShapeDtypeStruct((8, 4), jnp.float32), rngs=rngs)
            self.head = nnx.Linear(6, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(self.body(x))

    whole = Whole(nnx.Rngs(params=0, dropout=1))
    params = jax.tree.map(jnp.asarray, nnx.to_pure_dict(nnx.state(whole.body, nnx.Param)))["params"]
    state = nnx.to_pure_dict(nnx.state(whole.body, nnx.BatchStat))["model_state"]
    whole.eval()
    near(whole.body(X), MODEL.apply(params, state, X)[0])
    assert np.array_equal(whole.body(X), whole.body(X))
    whole.train()
    assert not np.array_equal(whole.body(X), whole.body(X))
    optimizer = nnx.Optimizer(whole, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(whole: Any, optimizer: Any) -> Any:
        value, slope = nnx.value_and_grad(lambda whole: loss_of(whole(X)))(whole)
        optimizer.update(whole, slope)
        return value

    losses = [float(step(whole, optimizer)) for _ in range(30)]
    assert losses[-1] < losses[0]
    moved = nnx.to_pure_dict(nnx.state(whole.body, nnx.BatchStat))["model_state"]
    assert float(np.abs(moved["norm"]["mean"]).max()) > 0.05


def test_inside_equinox_it_trains_and_its_state_goes_along():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")

    class Whole(eqx.Module):
        body: Any
        head: Any

        def __init__(self, key: Any) -> None:
            one, other = jax.random.split(key)
            self.body = interop.to_equinox(MODEL, X, key=one)
            self.head = eqx.nn.Linear(6, 1, key=other)

        def __call__(self, x: Any, state: Any, key: Any = None) -> Any:
            x, state = self.body(x, state, key=key)
            return jax.vmap(self.head)(x), state

    whole, state = eqx.nn.make_with_state(Whole)(jax.random.key(0))
    own, first = MODEL.init(jax.random.split(jax.random.key(0))[0], X)
    near(whole.body.params, own)
    evaluated = eqx.nn.inference_mode(whole)
    y, _ = evaluated.body(X, state)
    near(y, MODEL.apply(own, first, X)[0])

    @eqx.filter_jit
    def step(whole: Any, state: Any, key: Any) -> Any:
        def loss(whole: Any, state: Any) -> Any:
            y, state = whole(X, state, key)
            return loss_of(y), state

        (value, state), slope = eqx.filter_value_and_grad(loss, has_aux=True)(whole, state)
        move = jax.tree.map(lambda g: -0.1 * g, slope)
        return value, eqx.apply_updates(whole, move), state

    losses = []
    for number in range(30):
        value, whole, state = step(whole, state, jax.random.key(number))
        losses.append(float(value))
    assert losses[-1] < losses[0]
    assert float(np.abs(state.get(whole.body.index)["norm"]["mean"]).max()) > 0.05
    assert not np.array_equal(whole.body.params["hidden"]["kernel"], own["hidden"]["kernel"])
