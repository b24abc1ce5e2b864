"""Kernels against the explicit J J^T, by every method, form and tile."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from functorch_kit import nn
from functorch_kit.transforms import TransformError, ntk, ntk_product
from functorch_kit.transforms.ntk import METHODS

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Net(NamedTuple):
    f: Callable[..., Any]
    params: Any
    is_separable: bool


def _of(model: nn.Model, train: bool = False) -> Net:
    params, state = model.init(jax.random.key(1), jnp.ones((1, 4)))
    state = jax.tree.map(lambda leaf: leaf + jnp.linspace(0.1, 0.7, leaf.size), state)

    def f(params, x):
        return model.apply(params, state, x, key=jax.random.key(3), train=train)[0]

    return Net(f, params, not train)


def _tied(params, x):
    return jnp.tanh(x @ params["table"]) @ params["table"].T + params["bias"][None]


def _nets() -> dict[str, Net]:
    block = nn.serial(hidden=nn.dense(4), act=nn.tanh)
    norm = nn.serial(a=nn.dense(3), norm=nn.batch_norm(), act=nn.tanh, b=nn.dense(2))
    table = {"table": jnp.linspace(-1, 1, 12).reshape(4, 3), "bias": jnp.zeros(4)}
    dropped = nn.serial(a=nn.dense(3), drop=nn.dropout(0.4), act=nn.tanh, b=nn.dense(2))
    return {
        "tied": Net(_tied, table, True),
        "batch_norm": _of(norm),
        "batch_norm_in_training": _of(norm, train=True),
        "dropout": _of(dropped, train=True),
        "scan_and_remat": _of(nn.serial(body=nn.repeat(block, 2, remat=True), head=nn.dense(2))),
        "convolution": _convolution(),
    }


def _convolution() -> Net:
    model = nn.serial(conv=nn.conv(2, (2,)), act=nn.tanh, flat=nn.flatten(), head=nn.dense(2))
    params, _ = model.init(jax.random.key(0), jnp.ones((1, 4, 1)))
    return Net(lambda params, x: model.apply(params, (), x[..., None])[0], params, True)


NETS = ["tied", "batch_norm", "batch_norm_in_training", "dropout", "scan_and_remat", "convolution"]
_KNOWN: dict[str, Net] = {}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, x64: None) -> Net:
    if not _KNOWN:
        _KNOWN.update(_nets())
    return _KNOWN[request.param]


def _x(count: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 4)))


def _jacobian(net: Net, x: jax.Array) -> np.ndarray:
    vector, unravel = ravel_pytree(net.params)
    return np.asarray(jax.jit(jax.jacobian(lambda v: net.f(unravel(v), x)))(vector))


def _kernel(net: Net, x1: jax.Array, x2: jax.Array) -> np.ndarray:
    return np.einsum("aop,bqp->aboq", _jacobian(net, x1), _jacobian(net, x2))


FORMS = {"full": "aboq->aboq", "diagonal": "aboo->abo", "trace": "aboo->ab"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_explicit_kernel(net: Net, method: str):
    if method == "structured" and not net.is_separable:
        pytest.skip("refused, see test_a_kernel_that_cannot_be_is_refused")
    x1, x2 = _x(5, 0), _x(5, 1)
    expected = _kernel(net, x1, x2)
    for outputs in FORMS if net.f is _tied else ("full",):
        form = FORMS[outputs]
        found = ntk(
            net.f, net.params, x1, x2, outputs=outputs, method=method, separable=net.is_separable
        )
        np.testing.assert_allclose(found.values, np.einsum(form, expected), rtol=0, atol=1e-10)
        assert found.method == method


@pytest.mark.parametrize("method", ["jacobian", "vector"])
def test_small_tiles_make_the_same_kernel(x64: None, method: str):
    net = _nets()["tied"]
    x = _x(5, 0)
    # Two examples' Jacobians, or eight gradients; neither divides what there is.
    gradient = 16 * 8
    memory = 3 * gradient * (4 * 2 if method == "jacobian" else 8)
    for x2 in (None, _x(7, 1)):
        found = ntk(net.f, net.params, x, x2, method=method, memory=memory)
        expected = _kernel(net, x, x if x2 is None else x2)
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)
        assert found.tile == ((2, 2) if method == "jacobian" else (5, 8))


@pytest.mark.parametrize("net", ["tied", "convolution"], indirect=True)
def test_each_example_with_itself_is_the_diagonal_of_the_kernel(net: Net):
    x = _x(5, 0)
    whole = np.einsum("aaoq->aoq", _kernel(net, x, x))
    for outputs, form in {"full": "aoq->aoq", "diagonal": "aoo->ao", "trace": "aoo->a"}.items():
        found = ntk(net.f, net.params, x, outputs=outputs, pairs="same")
        np.testing.assert_allclose(found.values, np.einsum(form, whole), rtol=0, atol=1e-10)


@pytest.mark.parametrize("net", ["batch_norm_in_training", "scan_and_remat"], indirect=True)
def test_a_product_is_that_with_the_kernel(net: Net):
    x1, x2 = _x(5, 0), _x(5, 1)
    v = jnp.asarray(np.random.default_rng(2).normal(size=net.f(net.params, x2).shape))
    expected = np.einsum("aboq,bq->ao", _kernel(net, x1, x2), v)
    whole = ntk_product(net.f, net.params, x1, x2)
    np.testing.assert_allclose(jax.jit(whole)(v), expected, rtol=0, atol=1e-10)
    if net.is_separable:
        pieces = ntk_product(net.f, net.params, x1, x2, chunk=2)
        np.testing.assert_allclose(pieces(v), expected, rtol=0, atol=1e-10)


def test_the_method_is_the_one_that_was_measured_to_be_faster(x64: None):
    net = _nets()["tied"]
    found = ntk(net.f, net.params, _x(5, 0))
    # Of a table that is used twice nothing is left in factors.
    assert set(found.seconds) == {"jacobian", "vector"}
    assert found.method == min(found.seconds, key=lambda name: found.seconds[name])
    assert min(found.seconds.values()) > 0


def test_a_dense_layer_is_left_in_factors_and_takes_larger_tiles():
    def f(params, x):
        return jnp.tanh(x @ params["body"]) @ params["head"]

    params = {"body": jnp.ones((100, 50)) / 100, "head": jnp.ones((50, 2))}
    x = jax.random.normal(jax.random.key(0), (9, 100))
    tiles = {}
    for method in ("jacobian", "structured"):
        found = ntk(f, params, x, method=method, memory=200_000)
        tiles[method] = found.tile[0]
        kept = found.values
    assert tiles == {"jacobian": 1, "structured": 9}
    expected = ntk(f, params, x, method="jacobian").values
    np.testing.assert_allclose(kept, expected, rtol=1e-4)
    assert set(ntk(f, params, x).seconds) == set(METHODS)


def test_a_function_that_mixes_examples_is_refused_unless_it_is_said():
    model = nn.batch_norm()
    x = jnp.array([[1.0], [3.0], [8.0]])
    params, state = model.init(jax.random.key(0), x)

    def f(params, x):
        return model.apply(params, state, x, train=True)[0]

    with pytest.raises(TransformError, match="evaluate, or pass separable=False"):
        ntk(f, params, x)
    assert ntk(f, params, x, separable=False).values.shape == (3, 3, 1, 1)


def test_a_kernel_that_cannot_be_is_refused():
    def f(w, x):
        return x @ w

    w, x = jnp.ones((2, 3)), jnp.ones((4, 2))
    with pytest.raises(TransformError, match="outputs 'all' is not one of full, diagonal, trace"):
        ntk(f, w, x, outputs="all")
    with pytest.raises(TransformError, match="'structured' needs a separable function"):
        ntk(f, w, x, method="structured", separable=False)
    with pytest.raises(TransformError, match="method 'fast' is not one of"):
        ntk(f, w, x, method="fast")
    with pytest.raises(TransformError, match="pairs='same' takes x1 alone"):
        ntk(f, w, x, x, pairs="same")
    with pytest.raises(TransformError, match="one array, examples first"):
        ntk(lambda w, x: jnp.sum(x @ w), w, x)
    with pytest.raises(TransformError, match=r"call it outside jax\.jit, or ntk_product inside"):
        jax.jit(lambda w: ntk(f, w, x).values)(w)
    with pytest.raises(TransformError, match=r"the vector is float32\[4\]: give float32\[4, 3\]"):
        ntk_product(f, w, x)(jnp.ones(4))
    with pytest.raises(TransformError, match=r"outputs are \[3\] at x1 and \[2\] at x2"):
        ntk(
            lambda w, x: x["x"] @ w[:, : x["n"].shape[1]],
            w,
            {"x": x, "n": jnp.ones((4, 3))},
            {"x": x, "n": jnp.ones((4, 2))},
        )
