from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)


def _counter(step: float) -> nn.Model:
    """Adds to x, and to its state how often it was called."""

    def apply(params, model_state, x, *, key=None, train=False):
        return x + step, {"calls": model_state["calls"] + 1}

    return nn.Model(lambda key, x_spec: ({}, {"calls": jnp.zeros((), jnp.int32)}), apply)


def test_a_branch_is_the_part_that_was_chosen_and_moves_its_state_only(maybe_jit):
    model = nn.branch(one=_counter(1.0), ten=_counter(10.0))
    _, state = model.init(KEY, {"x": jnp.zeros(2), "branch": jnp.int32(0)})
    apply = maybe_jit(model.apply)
    for chosen, expected in ((1, 10.0), (0, 1.0), (1, 10.0), (True, 10.0)):
        y, state = apply({}, state, {"x": jnp.zeros(2), "branch": jnp.asarray(chosen)})
        assert y.tolist() == [expected] * 2
    assert {name: int(each["calls"]) for name, each in state.items()} == {"one": 1, "ten": 3}


@pytest.mark.parametrize("chosen", [-1, 2])
def test_an_index_without_a_part_gives_nan_and_leaves_the_state(chosen, maybe_jit):
    model = nn.branch(_counter(1.0), _counter(10.0))
    _, state = model.init(KEY, {"x": jnp.zeros(()), "branch": jnp.int32(0)})
    x = {"x": jnp.zeros(()), "branch": jnp.int32(chosen)}
    y, after = maybe_jit(model.apply)({}, state, x)
    assert np.isnan(y)
    assert jax.tree.map(int, after) == jax.tree.map(int, state)


def test_the_lectures_conditional(maybe_jit, x64):
    """N, D, H = 3, 4, 5: y = x w1 if z > 0 else x w2; only the chosen one gets a gradient."""
    model = nn.branch(
        w2=nn.dense(5, use_bias=False), w1=nn.dense(5, use_bias=False), choose=lambda x: x[0, 0] > 0
    )
    random = np.random.default_rng(0)
    w1, w2 = random.normal(size=(2, 4, 5))
    params = {"w1": {"kernel": jnp.asarray(w1)}, "w2": {"kernel": jnp.asarray(w2)}}
    for sign, w, name, other in ((1, w1, "w1", "w2"), (-1, w2, "w2", "w1")):
        x = sign * np.abs(random.normal(size=(3, 4)))
        slope, y = maybe_jit(
            jax.grad(lambda p, x: (jnp.sum(y := model.apply(p, (), x)[0]), y), has_aux=True)
        )(params, jnp.asarray(x))
        np.testing.assert_allclose(y, x @ w, rtol=1e-12)
        np.testing.assert_allclose(
            slope[name]["kernel"], np.outer(x.sum(0), np.ones(5)), rtol=1e-12
        )
        assert not slope[other]["kernel"].any()


def test_only_the_chosen_branch_is_computed():
    model = nn.branch(nn.dense(3), nn.dense(3), choose=lambda x: x.sum() > 0)
    params, _ = model.init(KEY, jnp.ones((2, 3)))
    jaxpr = str(jax.make_jaxpr(lambda x: model.apply(params, (), x)[0])(jnp.ones((2, 3))))
    outside, _, inside = jaxpr.partition("cond[")
    assert "dot_general" not in outside
    assert inside.count("dot_general") == 2


def test_under_vmap_each_example_takes_its_own_branch():
    model = nn.branch(nn.lambda_(lambda x: 2 * x), nn.lambda_(jnp.square), choose=lambda x: x > 4)
    y, _ = jax.vmap(lambda x: model.apply({}, (), x))(jnp.array([3.0, 5.0]))
    assert y.tolist() == [6.0, 25.0]


def test_the_lectures_loop_that_reuses_its_middle_layer(maybe_jit, x64):
    """The middle layer 0 to 3 times, with the same weights each time."""
    middle = nn.serial(dense=nn.dense(4, use_bias=False), relu=nn.relu)
    model = nn.loop(middle, 3)
    w = np.random.default_rng(0).normal(size=(4, 4))
    params, x = {"dense": {"kernel": jnp.asarray(w)}}, np.ones((2, 4))

    @maybe_jit
    def both(times):
        def value(p):
            y, _ = model.apply(p, (), {"x": jnp.asarray(x), "times": times})
            return jnp.sum(y), y

        return jax.grad(value, has_aux=True)(params)

    def plain(w, times):
        y = jnp.asarray(x)
        for _ in range(times):
            y = jax.nn.relu(y @ w)
        return y

    for times in range(4):
        slope, y = both(jnp.int32(times))
        np.testing.assert_allclose(y, plain(w, times), rtol=1e-12)
        expected = jax.grad(lambda w, n=times: jnp.sum(plain(w, n)))(jnp.asarray(w))
        np.testing.assert_allclose(slope["dense"]["kernel"], expected, rtol=1e-12)
    for times in (-1, 4):
        assert np.isnan(both(jnp.int32(times))[1]).all()


@pytest.mark.parametrize("differentiable", [True, False])
def test_a_loop_goes_on_until_it_is_told_to_stop(differentiable, maybe_jit):
    double = nn.lambda_(lambda x: 2 * x)
    model = nn.loop(double, 10, go_on=lambda x: x < 100, differentiable=differentiable)
    run = maybe_jit(lambda x: model.apply({}, (), x)[0])
    assert [float(run(jnp.float32(x))) for x in (1, 60, 100, 0)] == [128, 120, 100, 0]


def test_each_time_drops_other_elements():
    model = nn.loop(nn.dropout(0.5), 2)
    y, _ = model.apply({}, (), jnp.ones(1000), key=KEY, train=True)
    # 4 where both kept it; were both times the same, half of them would be.
    assert float((y == 4).mean()) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.loop(nn.relu), "give times, or go_on with differentiable=False"),
        (lambda: nn.loop(nn.relu, -1), "-1 times is not 0 or more"),
        (lambda: nn.loop(nn.batch_norm(), 2).init(KEY, jnp.ones((2, 3))), "the body has state"),
        (
            lambda: nn.loop(nn.dense(2), 2).apply(*_dense()[:2], jnp.ones((2, 3))),
            "keep shape and dtype",
        ),
        (
            lambda: nn.loop(nn.relu, 2).apply({}, (), {"x": jnp.ones(2), "times": jnp.ones(2)}),
            "give one number, or vmap",
        ),
        (lambda: nn.branch(nn.relu).apply({}, (), jnp.ones(2)), "give choose="),
        (
            lambda: nn.branch(nn.relu, choose=lambda x: x).apply({}, (), jnp.ones(2)),
            "give one whole number or truth value",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()


def _dense():
    x = jnp.ones((2, 3))
    return *nn.dense(2).init(KEY, x), x


def test_a_graph_may_use_a_part_twice_and_its_parameters_otherwise(maybe_jit):
    def forward(part, x):
        both = [part("encode", x[name]) for name in ("left", "right")]
        return nn.attend({"embedding": part.params("encode")["kernel"]}, both[0] * both[1])

    model = nn.graph(forward, encode=nn.dense(3, use_bias=False))
    x = {"left": jnp.ones((1, 2)), "right": 2 * jnp.ones((1, 2))}
    params, state = model.init(KEY, x)
    assert jax.tree.map(jnp.shape, params) == {"encode": {"kernel": (2, 3)}}
    w = params["encode"]["kernel"]
    y, _ = maybe_jit(model.apply)(params, state, x)
    np.testing.assert_allclose(y[0], 2 * w.sum(0) ** 2 @ w.T, rtol=1e-5)


def test_a_graph_passes_state_on_from_use_to_use(maybe_jit):
    model = nn.graph(lambda part, x: part("count", part("count", x)), count=_counter(1.0))
    _, state = model.init(KEY, jnp.zeros(()))
    y, state = maybe_jit(model.apply)({}, state, jnp.zeros(()))
    assert (float(y), int(state["count"]["calls"])) == (2.0, 2)


def test_a_part_that_is_missing_or_never_applied_is_named():
    with pytest.raises(nn.LayerError, match="no part 'gate': there are value"):
        nn.graph(lambda part, x: part("gate", x), value=nn.relu).apply({}, (), jnp.ones(1))
    with pytest.raises(nn.LayerError, match="never applied: value"):
        nn.graph(lambda part, x: x, value=nn.relu).init(KEY, jnp.ones(1))


def test_a_reversed_gradient_turns_what_arrives_and_takes_a_traced_scale(maybe_jit):
    def slope(x, scale):
        return jax.grad(lambda x: nn.reverse_gradient(scale).apply({}, (), x**3)[0])(x)

    assert float(maybe_jit(slope)(2.0, 0.5)) == -6.0
    x = jnp.float32(0.1)
    assert nn.reverse_gradient(3.0).apply({}, (), x)[0] == x


def test_what_goes_straight_through_rounds_forward_and_not_backward(maybe_jit):
    layer = nn.straight_through(jnp.round)
    slope, y = maybe_jit(
        jax.grad(lambda x: (jnp.sum(y := layer.apply({}, (), x)[0] ** 2), y), has_aux=True)
    )(jnp.array([0.4, 1.6]))
    assert (y.tolist(), slope.tolist()) == ([0.0, 4.0], [0.0, 4.0])
