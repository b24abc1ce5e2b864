"""What every layer must do, whatever it computes (N1 and N3 of the test plan)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from functorch_kit import nn
from tests.nn.cases import CASES, Case

pytestmark = pytest.mark.usefixtures("compiled_quickly")

each_layer = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
KEY = jax.random.key(3)


def _apply(case: Case, train: bool):
    return lambda params, state, x: case.layer.apply(params, state, x, key=KEY, train=train)


def _largest(tree) -> float:
    return max((float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(tree)), default=0.0)


def _worst_relative(a, b) -> float:
    apart = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)
    return _largest(apart) / max(_largest(b), 1.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32], ids=str)
@each_layer
def test_the_output_has_the_declared_shape_and_the_dtype_of_the_input(case: Case, dtype):
    x = jax.ShapeDtypeStruct(case.x_shape, dtype)
    y = nn.output_spec(case.layer, *case.specs(dtype), x)
    assert (y.shape, y.dtype) == (case.y_shape, dtype)


@each_layer
def test_parameters_take_the_dtype_of_the_input_and_statistics_at_least_32_bits(case: Case):
    params, state = case.specs(jnp.bfloat16)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    # Running statistics are sums of many small changes, which 8 bits would lose.
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))


@each_layer
def test_the_gradient_is_the_finite_difference_for_every_element(case: Case, x64):
    params, state, x = case.arrays(jnp.float64)
    flat, restore = ravel_pytree((params, x))
    direction = np.random.default_rng(9).standard_normal(case.y_shape)
    step = 1e-5

    def both(flat, train):
        def value(flat):
            y, _ = _apply(case, train)(restore(flat)[0], state, restore(flat)[1])
            return jnp.sum(y * direction)

        moves = step * jnp.eye(flat.size, dtype=flat.dtype)
        ahead = jax.vmap(lambda move: value(flat + move))(moves)
        behind = jax.vmap(lambda move: value(flat - move))(moves)
        return jax.grad(value)(flat), (ahead - behind) / (2 * step)

    for train in {False, case.trains}:
        gradient, difference = jax.jit(both, static_argnums=1)(flat, train)
        assert float(jnp.max(jnp.abs(difference))) > 0
        assert _worst_relative(gradient, difference) <= 1e-6


@each_layer
def test_the_second_derivative_is_the_finite_difference_of_the_first(case: Case, x64):
    params, state, x = case.arrays(jnp.float64)
    flat, restore = ravel_pytree((params, x))
    random = np.random.default_rng(9)
    direction, other = random.standard_normal(case.y_shape), random.standard_normal(flat.size)
    step = 1e-5

    def both(flat, train):
        def value(flat):
            y, _ = _apply(case, train)(restore(flat)[0], state, restore(flat)[1])
            return jnp.sum(jnp.sin(y) * direction)

        # A product with a vector without zeros meets every element of the Hessian.
        slope = jax.grad(value)
        along = jax.grad(lambda flat: jnp.vdot(slope(flat), other))(flat)
        return along, (slope(flat + step * other) - slope(flat - step * other)) / (2 * step)

    along, difference = jax.jit(both, static_argnums=1)(flat, case.trains)
    assert float(jnp.max(jnp.abs(difference))) > 0
    assert _worst_relative(along, difference) <= 1e-6


@each_layer
def test_fewer_bits_stay_near_float64_forward_and_gradient(case: Case, x64):
    params, state, x = case.arrays(jnp.float64)
    direction = np.random.default_rng(9).standard_normal(case.y_shape)

    def in_dtype(dtype):
        less = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
        statistics = jnp.float64 if dtype == jnp.float64 else jnp.float32
        kept = jax.tree.map(lambda leaf: leaf.astype(statistics), state)

        def value(params, x):
            y, _ = case.layer.apply(params, kept, x)
            return jnp.sum(y.astype(statistics) * direction.astype(statistics)), y

        return jax.grad(value, (0, 1), has_aux=True)(*less)

    exact, single, half = jax.jit(
        lambda: [in_dtype(dtype) for dtype in (jnp.float64, jnp.float32, jnp.bfloat16)]
    )()
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (single, half))
    assert _worst_of_norms(wide[0], exact) <= 1e-5
    assert _worst_of_norms(wide[1], exact) <= 2e-2 * case.passes


def _worst_of_norms(a, b) -> float:
    """The largest distance of two leaves, against the size of the second, or 1 if that is less."""
    apart = [
        float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1.0))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return max(apart)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [pytest.param("float32", 1e-6, marks=pytest.mark.soak), ("float64", 1e-12)],
)
@each_layer
def test_jit_and_eager_and_vmap_of_one_agree(case: Case, dtype, bound, x64):
    params, state, x = case.arrays(jnp.dtype(dtype))

    def run(*arguments):
        return [_apply(case, train)(*arguments) for train in {False, case.trains}]

    def as_one_lane(*arguments):
        lanes = jax.tree.map(lambda leaf: leaf[None], arguments)
        return jax.tree.map(lambda leaf: leaf[0], jax.vmap(run)(*lanes))

    eager = jax.tree.map(np.asarray, run(params, state, x))
    both = jax.jit(lambda *arguments: (run(*arguments), as_one_lane(*arguments)))
    jitted, mapped = both(params, state, x)
    assert _worst_relative(jitted, eager) <= bound
    assert _worst_relative(mapped, eager) <= bound


APART = {name: case for name, case in CASES.items() if len(case.x_shape) > 1 and case.apart}


@pytest.mark.parametrize("case", APART.values(), ids=APART)
def test_in_evaluation_examples_do_not_see_each_other(case: Case, x64):
    params, state, x = case.arrays(jnp.float64)

    def together_and_alone(x):
        def run(x):
            return _apply(case, False)(params, state, x)[0]

        return run(x), jax.vmap(lambda example: run(example[None])[0])(x)

    together, alone = jax.jit(together_and_alone)(x)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)


@each_layer
def test_evaluation_returns_the_state_that_it_was_given(case: Case):
    params, state, x = case.arrays()
    if case is CASES["recurrent, stateful"]:
        pytest.skip("its state is what it remembers")
    # In a jaxpr, an output that is untouched is an input variable itself.
    jaxpr = jax.make_jaxpr(lambda state: case.layer.apply(params, state, x)[1])(state).jaxpr
    assert jaxpr.outvars == jaxpr.invars


@each_layer
def test_the_state_keeps_its_structure_shapes_and_dtypes_in_training(case: Case):
    params, state = case.specs(jnp.float32)
    x = jax.ShapeDtypeStruct(case.x_shape, jnp.float32)
    after = jax.eval_shape(
        lambda p, s, x: case.layer.apply(p, s, x, key=KEY, train=True)[1], params, state, x
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


def test_every_layer_of_the_namespace_is_among_the_cases():
    tried = " ".join(CASES)
    # They have files of their own.
    elsewhere = {
        *("embedding", "serial", "parallel", "lambda_", "gaussian_sample", "one_hot", "attend"),
        # What they compute is not what their gradient is of.
        *("reverse_gradient", "straight_through"),
    }
    inside = {
        "relu",
        "gelu",
        "elu",
        "silu",
        "softplus",
        "tanh",
        "sigmoid",
        "identity",
        "log_softmax",
    }
    tools = {
        *(
            "Model",
            "apply_part",
            "output_spec",
            "scope",
            "tag",
            "part_key",
            "current_path",
            "placed",
        ),
        *("treated", "mean_and_log_variance", "apart", "together", "stacked", "unstacked"),
        *("Cell", "LayerError", "Wires"),
    }
    missing = [name for name in nn.__all__ if name not in tried]
    assert set(missing) <= elsewhere | inside | tools
