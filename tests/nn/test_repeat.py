from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.types import path_name

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
BLOCK = nn.serial(dense=nn.dense(3), norm=nn.batch_norm(), act=nn.tanh, drop=nn.dropout(0.4))
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def _assert_equal(a, b, rtol=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("remat", [False, True])
def test_repeat_is_a_stack_of_the_same_block_in_every_number(remat):
    """Initial parameters, outputs with dropout, state, gradients."""
    one, many = nn.stack(*[BLOCK] * 3), nn.repeat(BLOCK, 3, remat=remat)
    (params, state), (at_once, states) = (jax.jit(m.init)(KEY, X) for m in (one, many))
    _assert_equal(nn.unstacked(at_once), params)
    _assert_equal(nn.stacked(params), at_once)

    def value(model, params, state):
        y, state = model.apply(params, state, X, key=jax.random.key(5), train=True)
        return jnp.sum(jnp.sin(y)), (y, state)

    slope, (y, after) = jax.jit(jax.grad(lambda *at: value(one, *at), has_aux=True))(params, state)
    slopes, (z, afters) = jax.jit(jax.grad(lambda *at: value(many, *at), has_aux=True))(
        at_once, states
    )
    assert (y == 0).any()
    _assert_equal(z, y, 1e-6)
    _assert_equal(nn.unstacked(afters), after, 1e-6)
    _assert_equal(nn.unstacked(slopes), slope, 1e-5)


def test_the_program_does_not_grow_with_the_depth():
    def size(depth):
        model = nn.repeat(BLOCK, depth)
        params, state = jax.eval_shape(lambda: model.init(KEY, X))
        lowered = jax.jit(lambda p, s: model.apply(p, s, X, key=KEY, train=True)).lower(
            params, state
        )
        return len(lowered.as_text())

    assert size(48) <= 1.05 * size(4)


def test_a_parameters_path_has_no_number_and_a_leading_axis():
    model = nn.serial(blocks=nn.repeat(nn.serial(dense=nn.dense(3)), 5))
    params, _ = jax.eval_shape(lambda: model.init(KEY, X))
    shapes = {path_name(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert shapes == {"blocks/dense/kernel": (5, 3, 3), "blocks/dense/bias": (5, 3)}


@pytest.mark.parametrize("wrap", [lambda b: nn.stack(b, b), lambda b: nn.repeat(b, 2)])
def test_what_comes_beside_x_goes_to_each_block(wrap, x64):
    model = wrap(nn.attention(1, causal=True))
    x = {"x": jnp.ones((1, 4, 2)), "segments": jnp.array([[0, 0, 1, 1]])}
    params, state = model.init(KEY, x)
    y, _ = model.apply(params, state, x)
    alone, _ = model.apply(params, state, x["x"][:, 2:])
    np.testing.assert_allclose(y[:, 2:], alone, rtol=1e-12)


def test_remat_keeps_the_numbers_and_computes_twice():
    body = nn.serial(dense=nn.dense(3), act=nn.tanh)
    params, _ = body.init(KEY, X)

    def slopes(model):
        return jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, (), X)[0])))

    _assert_equal(slopes(nn.remat(body))(params), slopes(body)(params), 1e-6)
    tanhs = [str(jax.make_jaxpr(slopes(m))(params)).count(" tanh ") for m in (body, nn.remat(body))]
    assert tanhs == [1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.repeat(nn.dense(3), 0), "0 times is not 1 or more"),
        (
            lambda: nn.repeat(nn.dense(2), 2).init(KEY, X),
            r"makes float32\[4, 2\] of float32\[4, 3\]",
        ),
        (lambda: nn.stacked({"0": X, "2": X}), "the entries are 0, 2, not 0, 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()
