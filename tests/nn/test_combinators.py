from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.types import Model, path_name

KEY = jax.random.key(0)
SPEC = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def _counter() -> Model:
    """Adds to its state how often it was called, and to x its state."""

    def apply(params, model_state, x, *, key=None, train=False):
        return x + model_state["calls"], {"calls": model_state["calls"] + 1}

    return Model(lambda key, x_spec: ({}, {"calls": jnp.zeros(())}), apply)


def _paths(tree) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def test_paths_read_like_an_address_and_empty_parts_leave_no_entry():
    model = nn.serial(
        stem=nn.serial(nn.dense(4), nn.relu, nn.dense(5, use_bias=False)),
        act=nn.relu,
        both=nn.parallel(left=nn.dense(1), none=nn.flatten(), combine=lambda a, b: a),
        block=nn.residual(nn.batch_norm()),
    )
    params, state = jax.eval_shape(lambda: model.init(KEY, SPEC))
    assert _paths(params) == [
        "block/body/bias",
        "block/body/scale",
        "both/left/bias",
        "both/left/kernel",
        "stem/0/bias",
        "stem/0/kernel",
        "stem/2/kernel",
    ]
    assert _paths(state) == ["block/body/mean", "block/body/var"]


def test_a_model_without_parameters_has_an_empty_dict_and_no_state():
    assert nn.serial(nn.relu, nn.flatten()).init(KEY, SPEC) == ({}, ())
    assert nn.parallel(nn.relu, nn.relu).init(KEY, SPEC) == ({}, ())


def test_parts_are_applied_in_the_order_they_are_named(maybe_jit):
    model = nn.serial(z=nn.lambda_(lambda x: x + 1), a=nn.lambda_(lambda x: x * 10))
    assert float(maybe_jit(model.apply)({}, (), jnp.float32(1))[0]) == 20


def test_state_passes_from_call_to_call_through_every_combinator(maybe_jit):
    model = nn.serial(
        first=_counter(),
        act=nn.relu,
        second=nn.parallel(a=_counter(), b=nn.residual(_counter()), combine=jnp.add),
    )
    params, state = model.init(KEY, jnp.zeros(()))
    apply = maybe_jit(model.apply)
    results = []
    for _ in range(3):
        y, state = apply(params, state, jnp.zeros(()))
        results.append(float(y))
    # Call n: x = n after the first part, then (x + n) + ((x + n) + x).
    assert results == [0.0, 5.0, 10.0]
    assert [float(leaf) for leaf in jax.tree.leaves(state)] == [3.0, 3.0, 3.0]
    assert _paths(state) == ["first/calls", "second/a/calls", "second/b/body/calls"]


def test_parallel_gives_every_part_the_same_input(maybe_jit):
    parts = {"twice": nn.lambda_(lambda x: 2 * x), "square": nn.lambda_(jnp.square)}
    y, _ = maybe_jit(nn.parallel(twice=parts["twice"], square=parts["square"]).apply)(
        {}, (), jnp.float32(3)
    )
    assert {name: float(value) for name, value in y.items()} == {"twice": 6.0, "square": 9.0}
    less = nn.parallel(parts["twice"], parts["square"], combine=jnp.subtract)
    y, _ = maybe_jit(less.apply)({}, (), jnp.float32(3))
    assert float(y) == -3.0


def test_a_pytree_passes_through(maybe_jit):
    swap = nn.lambda_(lambda x: {"a": x["b"], "b": x["a"]})
    x = {"a": jnp.ones(2), "b": jnp.zeros(3)}
    y, _ = maybe_jit(nn.serial(swap, swap, swap).apply)({}, (), x)
    assert y["a"].shape == (3,)
    y, _ = maybe_jit(nn.residual(nn.identity).apply)({}, (), x)
    assert float(y["a"][0]) == 2


def test_parameters_of_a_part_do_not_change_when_another_part_is_inserted():
    short = nn.serial(a=nn.dense(3), c=nn.dense(3)).init(KEY, SPEC)[0]
    long = nn.serial(a=nn.dense(3), b=nn.dense(3), c=nn.dense(3)).init(KEY, SPEC)[0]
    for name in ("a", "c"):
        np.testing.assert_array_equal(short[name]["kernel"], long[name]["kernel"])
    assert (long["a"]["kernel"] != long["b"]["kernel"]).any()


def test_equal_names_in_different_places_have_different_parameters():
    model = nn.serial(left=nn.serial(d=nn.dense(3)), right=nn.serial(d=nn.dense(3)))
    params, _ = model.init(KEY, SPEC)
    assert (params["left"]["d"]["kernel"] != params["right"]["d"]["kernel"]).all()


@pytest.mark.parametrize("combine", [nn.serial, nn.parallel])
def test_positions_and_names_do_not_mix(combine):
    with pytest.raises(ValueError, match="either all by position or all by name"):
        combine(nn.relu, head=nn.relu)
    with pytest.raises(ValueError, match="either all by position or all by name"):
        combine()


def test_an_error_names_the_part_it_came_from_once():
    model = nn.serial(body=nn.serial(nn.relu, nn.conv(2, (3, 3), padding="VALID")))
    with pytest.raises(ValueError, match="does not fit") as caught:
        jax.eval_shape(lambda: model.init(KEY, jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)))
    notes = [note for note in caught.value.__notes__ if note.startswith("in part")]
    assert notes == ["in part 'body/1'"]


@pytest.mark.parametrize("width", [1, 4])
def test_a_residual_of_another_shape_is_refused_not_broadcast(width):
    model = nn.serial(block=nn.residual(nn.dense(width)))
    with pytest.raises(
        ValueError, match=rf"body gives \(2, {width}\) and shortcut \(2, 3\)"
    ) as caught:
        model.init(KEY, SPEC)
    assert "in part 'block'" in caught.value.__notes__


def test_a_shortcut_projects_where_shapes_differ(maybe_jit):
    model = nn.residual(nn.dense(4), nn.dense(4, use_bias=False))
    params, state = model.init(KEY, SPEC)
    y, _ = maybe_jit(model.apply)(params, state, jnp.ones((2, 3)))
    expected = params["body"]["kernel"].sum(0) + params["shortcut"]["kernel"].sum(0)
    np.testing.assert_allclose(y[0], expected, rtol=1e-5)


def test_to_initialise_what_stands_in_combinators_each_layer_is_traced_once():
    traced = []

    def layer(name: str):
        return nn.lambda_(lambda x: traced.append(name) or 2 * x)

    model = nn.serial(a=layer("a"), b=layer("b"))
    for _ in range(3):
        model = nn.serial(inner=nn.residual(model))
    model.init(KEY, SPEC)
    assert traced == ["a", "b"]


def test_a_model_that_keeps_a_chains_init_and_not_its_apply_is_asked_for_its_own_output():
    chain = nn.serial(hidden=nn.dense(3))

    def flat(params, model_state, x, *, key=None, train=False):
        y, model_state = chain.apply(params, model_state, x)
        return y.reshape(-1), model_state

    params, _ = nn.serial(chain=nn.Model(chain.init, flat), head=nn.dense(2)).init(KEY, SPEC)
    assert params["head"]["kernel"].shape == (SPEC.shape[0] * 3, 2)
