"""Each product equals that with the dense matrix, from explicit Jacobians and Hessians."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functorch_kit.transforms import TransformError, curvature

pytestmark = pytest.mark.usefixtures("compiled_quickly")
BATCH = {"x": jnp.ones((2, 3)), "y": jnp.ones(2)}


def _losses(params: Any, batch: dict[str, Any]) -> jax.Array:
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def _params() -> dict[str, Any]:
    return {"w": jnp.ones(3)}


_DENSE: dict[Any, Any] = {}


def _dense_hessian(case: Any, batch: dict[str, Any]) -> np.ndarray:
    vector, unravel = case.flat()

    def total(vector, batch):
        return jnp.sum(batch["weight"] * case.all_losses(unravel(vector), batch))

    of_batch = _DENSE.setdefault(case.outputs, jax.jit(jax.hessian(total)))
    return np.asarray(of_batch(vector, batch))


def _pieces(case: Any, batch: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """J (batch, outputs, size), the loss's gradient and Hessian in each example's outputs."""
    vector, unravel = case.flat()

    def outputs(vector):
        return case.outputs(unravel(vector), batch)

    def loss(z, i):
        zs = jnp.zeros((len(batch["y"]), len(z))).at[i].set(z)
        return case.losses(zs, batch)[i]

    z = outputs(vector)
    jacobian = jax.jit(jax.jacobian(outputs))(vector)
    gradients = jax.vmap(jax.grad(loss))(z, jnp.arange(len(z)))
    hessians = jax.vmap(jax.hessian(loss))(z, jnp.arange(len(z)))
    return np.asarray(jacobian), np.asarray(gradients), np.asarray(hessians)


def _vector(case: Any, seed: int) -> tuple[Any, np.ndarray]:
    _, unravel = case.flat()
    flat = np.random.default_rng(seed).normal(size=len(case.flat()[0]))
    return unravel(jnp.asarray(flat)), flat


def _close(tree: Any, expected: np.ndarray) -> None:
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(seed=st.integers(0, 1000))
def test_a_hessian_product_is_that_of_the_dense_hessian(case, seed: int):
    matrix = curvature.hessian(case.all_losses, case.params, case.batch)
    v, flat = _vector(case, seed)
    expected = _dense_hessian(case, case.batch) @ flat / np.sum(case.batch["weight"])
    _close(matrix(v), expected)


def test_a_gauss_newton_product_is_that_of_the_explicit_jacobian(case):
    matrix = curvature.gauss_newton(case.outputs, case.losses, case.params, case.batch)
    jacobian, _, hessians = _pieces(case, case.batch)
    weight = np.asarray(case.batch["weight"])
    expected = np.einsum("i,iop,ioq,iqr->pr", weight, jacobian, hessians, jacobian) / weight.sum()
    v, flat = _vector(case, 0)
    _close(matrix(v), expected @ flat)


def test_the_empirical_fisher_is_the_sum_of_outer_products_of_gradients(case):
    matrix = curvature.fisher(
        case.outputs, case.losses, case.params, case.batch, kind="empirical", reduction="sum"
    )
    jacobian, scores, _ = _pieces(case, case.batch)
    gradients = np.einsum("io,iop->ip", scores, jacobian)
    weight = np.asarray(case.batch["weight"])
    v, flat = _vector(case, 1)
    _close(matrix(v), np.einsum("i,ip,iq,q->p", weight, gradients, gradients, flat))


def _draw(key, z, batch):
    return batch | {"y": jax.random.categorical(key, z)}


def test_the_sampled_fisher_comes_near_the_exact_one_and_is_one_matrix(tied):
    def sampled(samples):
        return curvature.fisher(
            *(tied.outputs, tied.losses, tied.params, tied.batch),
            kind="sampled",
            draw=_draw,
            key=jax.random.key(0),
            samples=samples,
        )

    exact = curvature.fisher(tied.outputs, tied.losses, tied.params, tied.batch)
    v, _ = _vector(tied, 2)
    many = sampled(2000)
    target, found = (
        np.concatenate([np.ravel(a) for a in jax.tree.leaves(f(v))]) for f in (exact, many)
    )
    assert np.linalg.norm(found - target) < 0.15 * np.linalg.norm(target)
    for again, first in zip(jax.tree.leaves(many(v)), jax.tree.leaves(many(v)), strict=True):
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_batches_add_up_to_the_whole_whether_they_are_kept_or_not(tied, memory: int):
    halves = [jax.tree.map(lambda leaf, at=at: leaf[at : at + 3], tied.batch) for at in (0, 3)]
    v, _ = _vector(tied, 3)
    weights = [float(np.sum(half["weight"])) for half in halves]
    expected = sum(_dense_hessian(tied, half) for half in halves) / sum(weights)
    matrix = curvature.hessian(tied.all_losses, tied.params, halves, memory=memory)
    _close(matrix(v), expected @ _vector(tied, 3)[1])


def test_stacked_batches_are_one_program_with_the_same_product(tied):
    halves = [jax.tree.map(lambda leaf, at=at: leaf[at : at + 3], tied.batch) for at in (0, 3)]
    stack = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), tied.batch)
    v, _ = _vector(tied, 4)
    apart = curvature.gauss_newton(tied.outputs, tied.losses, tied.params, halves)
    together = curvature.gauss_newton(tied.outputs, tied.losses, tied.params, stack, stacked=True)
    expected = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(apart(v))])
    _close(together(v), expected)


def test_an_operator_at_other_parameters_compiles_nothing():
    seen: list[float] = []

    def losses(params, batch):
        seen.append(0.0)
        return _losses(params, batch)

    for scale in (1.0, 2.0, 3.0):
        params = {"w": scale * jnp.ones(3)}
        matrix = curvature.hessian(losses, params, [BATCH, BATCH])
        matrix(params)
        seen.append(scale)
    # After the first a look at the shapes of what is kept, and no program.
    first = seen.index(1.0)
    assert len(seen) - first - 1 <= 4


def test_a_function_with_a_reverse_rule_alone_has_a_gauss_newton_matrix():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

    def outputs(params, batch):
        return double(batch["x"] @ params["w"])

    def losses(z, batch):
        return z**2 / 2

    matrix = curvature.gauss_newton(outputs, losses, _params(), BATCH)
    np.testing.assert_allclose(matrix.dense(), np.full((3, 3), 4.0))


def test_padding_of_weight_0_changes_nothing():
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, 7 * leaf[:1]]), BATCH)
    padded["weight"] = jnp.array([1.0, 1.0, 0.0])
    one, other = (curvature.hessian(_losses, _params(), data) for data in (BATCH, padded))
    np.testing.assert_array_equal(one.dense(), other.dense())


def test_data_that_can_be_read_once_only_is_refused():
    with pytest.raises(TransformError) as error:
        curvature.hessian(_losses, _params(), iter([BATCH]))
    assert str(error.value) == (
        "data is a list_iterator, which can be read once only:"
        " give a list, or an object whose __iter__ starts anew"
    )


def test_a_batch_of_another_shape_is_refused_and_the_leaf_is_named():
    other = {"x": jnp.ones((1, 3)), "y": jnp.ones(1)}
    with pytest.raises(
        TransformError, match=r"batch 1 differs from batch 0 in x \(float32\[1, 3\]"
    ):
        curvature.hessian(_losses, _params(), [BATCH, other])


def test_no_batches_are_refused():
    with pytest.raises(TransformError, match="data has no batches"):
        curvature.hessian(_losses, _params(), [])


def test_a_mean_loss_is_refused():
    with pytest.raises(TransformError, match=r"losses returns shape \(\) for a batch of 2"):
        curvature.hessian(lambda p, b: jnp.mean(_losses(p, b)), _params(), BATCH)


def test_weights_that_add_up_to_0_are_refused():
    with pytest.raises(TransformError, match="the weights add up to 0"):
        curvature.hessian(_losses, _params(), BATCH | {"weight": jnp.zeros(2)})


def test_a_vector_unlike_the_parameters_is_refused_and_the_leaf_is_named():
    matrix = curvature.hessian(_losses, _params(), BATCH)
    with pytest.raises(TransformError, match=r"v/w is float32\[2\]: give float32\[3\]"):
        matrix({"w": jnp.ones(2)})
    with pytest.raises(TransformError, match="not like the parameters"):
        matrix({"u": jnp.ones(3)})


def test_integer_parameters_are_refused():
    with pytest.raises(TransformError, match="params/n is int32"):
        curvature.Operator(lambda v: v, {"n": jnp.arange(3)})


def test_an_unknown_option_is_refused():
    with pytest.raises(TransformError, match="reduction 'total' is not"):
        curvature.hessian(_losses, _params(), BATCH, reduction="total")
    with pytest.raises(TransformError, match="kind 'true' is not"):
        curvature.fisher(lambda p, b: b["x"] @ p["w"], _losses, _params(), BATCH, kind="true")
    with pytest.raises(TransformError, match=r"takes draw\(key, z, batch\)"):
        curvature.fisher(lambda p, b: b["x"] @ p["w"], _losses, _params(), BATCH, kind="sampled")
    with pytest.raises(TransformError, match="stacked data is a dict of arrays"):
        curvature.hessian(_losses, _params(), [BATCH], stacked=True)
