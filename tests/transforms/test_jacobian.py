"""Jacobians against the closed form, in every mode, and where each mode is taken."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import transforms
from functorch_kit.transforms import TransformError

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def _layer(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.tanh(x @ weight)


def _closed_form(x: jax.Array, weight: jax.Array) -> jax.Array:
    return (1 - jnp.tanh(x @ weight) ** 2)[:, None] * weight.T


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("sizes", [(3, 7), (7, 3)])
@pytest.mark.parametrize("chunk", [None, 2])
def test_one_layer_has_its_closed_form(
    mode: str, sizes: tuple[int, int], chunk: int | None, x64: None
):
    x, weight = _normal(sizes[0]), _normal(*sizes)
    found = transforms.jacobian(_layer, mode, chunk=chunk)(x, weight)
    np.testing.assert_allclose(found, _closed_form(x, weight), atol=1e-12)


@pytest.mark.parametrize("mode", ["mixed", "auto"])
def test_a_bottleneck_is_gone_through_from_both_sides(mode: str, x64: None):
    x, down, up = _normal(12), _normal(12, 2), _normal(2, 9)

    def narrow(x, down, up):
        scale = jnp.sum(up)  # depends on no x, and is needed on both sides
        return _layer(_layer(x * scale, down), up) + scale

    found = transforms.jacobian(narrow, mode)(x, down, up)
    np.testing.assert_allclose(found, jax.jacrev(narrow)(x, down, up), atol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "middle", "outputs", "passes"),
    [
        (3, 50, 20, ["forward 3"]),
        (20, 50, 3, ["reverse 3"]),
        (20, 50, 20, ["forward 20"]),
        (40, 5, 30, ["forward 5", "reverse 5"]),
        (12, 10, 11, ["forward 12"]),  # 10 and 10 are more
    ],
)
def test_auto_goes_the_way_of_fewest_passes(
    inputs: int, middle: int, outputs: int, passes: list[str], monkeypatch: pytest.MonkeyPatch
):
    module = sys.modules["functorch_kit.transforms.jacobian"]
    taken: list[str] = []
    for way in ("forward", "reverse"):
        original = getattr(module, f"_{way}")

        def spied(f, x, limits, way=way, original=original):
            size = x.size if way == "forward" else jax.eval_shape(f, x).size
            taken.append(f"{way} {size}")
            return original(f, x, limits)

        monkeypatch.setattr(module, f"_{way}", spied)
    down, up = jnp.ones((inputs, middle)), jnp.ones((middle, outputs))
    found = transforms.jacobian(lambda x: _layer(_layer(x, down), up))(jnp.ones(inputs))
    assert found.shape == (outputs, inputs)
    assert sorted(taken) == passes


def test_a_tree_goes_in_and_out_as_jax_does_it(x64: None):
    def f(x, scale):
        return {"sum": x["a"].sum() * scale, "outer": jnp.outer(x["a"], x["b"][0])}

    x = {"a": _normal(2), "b": (_normal(3),)}
    found, expected = transforms.jacobian(f)(x, 2.0), jax.jacrev(f)(x, 2.0)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.shape == wanted.shape
        np.testing.assert_allclose(leaf, wanted, atol=1e-12)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_memory_in_between_stays_within_the_budget(mode: str):
    """4096 values for each of 256 rows are 4 MB."""

    def deep(x, up, down):
        return jnp.tanh(x @ up) @ down

    def held(memory: int) -> int:
        way = transforms.jacobian(deep, mode, memory=memory)
        arguments = jnp.ones(256), jnp.ones((256, 4096)), jnp.ones((4096, 256))
        analysis = jax.jit(way).lower(*arguments).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert held(1_000_000) < 2_000_000 < held(1 << 30)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: transforms.jacobian(jnp.sin, "backward"), "no mode 'backward'"),
        (lambda: transforms.jacobian(jnp.sin, memory=0), "memory=0"),
        (lambda: transforms.jacobian(jnp.sin)(jnp.arange(3)), "the input holds int32"),
        (lambda: transforms.jacobian(jnp.argmax)(jnp.ones(3)), "the output holds int32"),
        (lambda: transforms.jacobian(jnp.sin)(()), "the input has no arrays"),
        (lambda: transforms.jacobian(jnp.sin, "mixed")(jnp.ones(3)), "mixed: no place"),
    ],
)
def test_what_has_no_jacobian_is_refused_by_name(call, told: str):
    with pytest.raises(TransformError) as error:
        call()
    assert told in str(error.value)
