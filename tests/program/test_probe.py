"""What passes through each named part is given beside the output, and changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from functorch_kit import nn, train
from functorch_kit.program import by_iteration, probed
from tests.program.planted import LAYERS, stack

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.smoke
def test_each_part_is_given_once_in_order_and_as_it_was(maybe_jit):
    model = nn.serial(first=nn.dense(4), act=nn.tanh, second=nn.dense(2))
    params, _ = model.init(jax.random.key(0), X)
    y, values = maybe_jit(lambda p, x: probed(lambda p, x: model.apply(p, (), x)[0], p, x))(
        params, jnp.asarray(X)
    )
    # A dict comes out of jit with its keys sorted.
    expected = ["first", "act", "second"]
    assert list(values) == (sorted(expected) if maybe_jit is jax.jit else expected)
    hidden = X @ np.asarray(params["first"]["kernel"])
    np.testing.assert_allclose(values["first"], hidden, rtol=1e-5)
    np.testing.assert_allclose(values["act"], np.tanh(hidden), rtol=1e-5)
    assert (values["second"] == y).all()


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "remat"])
def test_a_scanned_stack_gives_the_values_of_the_same_layers_written_out(remat: bool):
    scanned = stack("none", remat=remat)
    params, _ = scanned.init(jax.random.key(1), X)
    _, values = probed(lambda x: scanned.apply(params, (), x)[0], jnp.asarray(X))
    inside = [name for name in values if "*" in name]
    assert inside == [f"blocks/*/{part}" for part in ("norm", "dense", "tanh", "planted")]
    apart = by_iteration(values)
    layer, x = nn.serial(norm=nn.layer_norm(), dense=nn.dense(4), tanh=nn.tanh), jnp.asarray(X)
    for index in range(LAYERS):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], params["blocks"])
        x, _ = layer.apply(own, (), x)
        np.testing.assert_allclose(apart[f"blocks/{index}/tanh"], x, rtol=1e-4, atol=1e-5)
    names = [name.rpartition("/")[0] for name in apart if name.endswith("dense")]
    assert names == [f"blocks/{index}" for index in range(LAYERS)]


def test_a_train_step_gives_its_forward_values_once_and_the_same_result(standard_promotion):
    model, optimizer = stack("none", remat=True), optax.adam(0.1)
    state = train.init_state(model, optimizer, X)
    batch = {"x": jnp.asarray(X), "y": jnp.zeros((3, 4))}
    step = train.make_train_step(train.regression(model), optimizer)
    expected = jax.jit(step)({}, state, batch)
    (after, metrics), values = jax.jit(lambda *given: probed(step, *given))({}, state, batch)
    for one, other in zip(
        jax.tree.leaves((after.params, metrics)),
        jax.tree.leaves((expected[0].params, expected[1])),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not [name for name in values if "#" in name]
    assert values["blocks/*/dense"].shape == (LAYERS, 3, 4)


def test_nested_loops_have_a_star_each_and_a_loop_outside_any_part_says_so():
    def inner(x, _):
        with nn.scope("leaf"):
            return nn.tag(x + 1), None

    def outer(x, _):
        with nn.scope("twig"):
            return lax.scan(inner, x, length=2)[0], None

    def f(x):
        with nn.scope("branch"):
            x, _ = lax.scan(outer, x, length=3)
        return lax.scan(inner, x, length=2)[0]

    y, values = probed(f, jnp.float32(0))
    assert {name: value.shape for name, value in values.items()} == {
        "branch/*/twig/*/leaf": (3, 2),
        "[*]/leaf": (2,),
    }
    apart = by_iteration(values)
    assert [float(apart[f"branch/{i}/twig/{j}/leaf"]) for i in range(3) for j in range(2)] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
    assert float(apart["[1]/leaf"]) == float(y) == 8


def test_a_reversed_scan_stacks_by_position_and_a_users_own_name_is_kept():
    def body(total, x):
        return checkpoint_name(total + x, "running"), None

    y, values = probed(
        lambda x: lax.scan(body, jnp.float32(0), x, reverse=True)[0], jnp.arange(4.0)
    )
    assert values["[*]/running"].tolist() == [6.0, 6.0, 5.0, 3.0]
    assert float(y) == 6.0


def test_a_part_that_is_applied_twice_has_two_values():
    def f(x):
        for _ in range(2):
            with nn.scope("shared"):
                x = nn.tag(2 * x)
        return x

    _, values = probed(f, jnp.float32(1))
    assert {name: float(value) for name, value in values.items()} == {"shared": 2, "shared#2": 4}
