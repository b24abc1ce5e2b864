"""Traces, diagonals, eigenpairs and solutions against NumPy on matrices that are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.transforms import TransformError, curvature
from functorch_kit.types import spec_of

SIZE = 40


def _matrix(values: Any, seed: int = 0) -> np.ndarray:
    """Symmetric, with the given eigenvalues."""
    random = np.random.default_rng(seed).normal(size=(len(values), len(values)))
    basis, _ = np.linalg.qr(random)
    return (basis * np.asarray(values)) @ basis.T


def _operator(matrix: np.ndarray) -> curvature.Operator:
    """The matrix over a pytree of two leaves."""
    whole = jnp.asarray(matrix)
    spec = spec_of(
        {"a": jnp.zeros((2, 3), whole.dtype), "b": jnp.zeros(len(matrix) - 6, whole.dtype)}
    )

    @jax.jit
    def product(v):
        found = whole @ jnp.concatenate([jnp.ravel(v["a"]), v["b"]])
        return {"a": found[:6].reshape(2, 3), "b": found[6:]}

    return curvature.Operator(product, spec)


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_dense_is_the_matrix(x64: None):
    matrix = _matrix(np.arange(8.0))
    np.testing.assert_allclose(_operator(matrix).dense(), matrix, atol=1e-14)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_the_error_bar_of_a_trace_holds_the_truth_as_often_as_it_should(x64: None, method: str):
    operator = _operator(_matrix(1.0 / np.arange(1, SIZE + 1)))
    truth, inside, errors = np.sum(1.0 / np.arange(1, SIZE + 1)), 0, []
    for seed in range(40):
        found = curvature.trace(operator, key=jax.random.key(seed), products=24, method=method)
        inside += abs(float(found.value) - truth) <= 2 * float(found.error)
        errors.append(float(found.error))
    # Of 40, all but 2 or so; an error bar that always holds would be too wide.
    assert inside >= 31
    assert 0 < np.median(errors) < 0.2 * truth


def test_hutch_plus_plus_errs_less_where_few_eigenvalues_matter(x64: None):
    operator = _operator(_matrix(np.exp(-np.arange(SIZE))))
    found = {
        method: curvature.trace(operator, key=jax.random.key(0), products=24, method=method)
        for method in ("hutchinson", "hutch++")
    }
    truth = np.sum(np.exp(-np.arange(SIZE)))
    errors = {name: abs(float(each.value) - truth) for name, each in found.items()}
    assert errors["hutch++"] < 0.05 * errors["hutchinson"]
    assert {each.products for each in found.values()} == {24}


def test_a_trace_is_exact_where_the_products_suffice_for_a_basis(x64: None):
    found = curvature.trace(_operator(_matrix(np.arange(8.0))), key=jax.random.key(0), products=24)
    assert float(found.value) == pytest.approx(28.0, abs=1e-12)
    assert float(found.error) == 0.0


def test_the_error_bars_of_a_diagonal_hold_the_truth_as_often_as_they_should(x64: None):
    matrix = _matrix(np.linspace(1, 2, SIZE))
    found = curvature.diagonal(_operator(matrix), key=jax.random.key(0), products=60)
    distance = np.abs(_flat(found.value) - np.diag(matrix))
    inside = np.mean(distance <= 2 * _flat(found.error))
    assert 0.85 <= inside <= 1
    assert np.all(_flat(found.error) > 0)
    assert found.value["a"].shape == (2, 3)


@pytest.mark.parametrize("end", ["largest", "smallest", "magnitude"])
def test_eigenpairs_are_those_of_numpy(x64: None, end: str):
    values = np.concatenate([np.linspace(-3, 4, SIZE - 3), [-9.0, 7.0, 8.0]])
    matrix = _matrix(values)
    found = curvature.eigenpairs(_operator(matrix), 3, key=jax.random.key(0), end=end)
    expected = {
        "largest": np.sort(values)[::-1][:3],
        "smallest": np.sort(values)[:3],
        "magnitude": np.array([-9.0, 8.0, 7.0]),
    }[end]
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    vectors = np.concatenate(
        [np.asarray(found.vectors["a"]).reshape(3, -1), np.asarray(found.vectors["b"])], axis=1
    )
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    actual = np.linalg.norm(matrix @ vectors.T - vectors.T * expected, axis=0)
    np.testing.assert_allclose(found.residuals, actual, atol=1e-10)
    assert found.products <= SIZE


def test_rounding_makes_no_copies_of_an_eigenvalue():
    # One value far out: without reorthogonalisation Lanczos finds it again and again in float32.
    values = np.concatenate([np.linspace(0, 1, 59), [1000.0]]).astype(np.float32)
    operator = _operator(_matrix(values).astype(np.float32))
    found = curvature.eigenpairs(operator, 3, key=jax.random.key(0), tolerance=0.0, products=60)
    np.testing.assert_allclose(found.values[0], 1000.0, rtol=1e-5)
    np.testing.assert_allclose(found.values[1:], [1.0, values[-3]], atol=2e-2)


def test_a_matrix_of_low_rank_stops_where_nothing_is_left(x64: None):
    found = curvature.eigenpairs(
        _operator(_matrix([5.0, 2.0, *[0.0] * (SIZE - 2)])), 2, key=jax.random.key(0)
    )
    np.testing.assert_allclose(found.values, [5.0, 2.0], atol=1e-12)
    assert found.products <= 4


def test_an_invariant_subspace_is_left_for_the_rest_of_the_matrix(x64: None):
    found = curvature.eigenpairs(_operator(np.eye(8)), 3, key=jax.random.key(0))
    np.testing.assert_allclose(found.values, np.ones(3), atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_solution_is_that_of_numpy(x64: None, damping: float):
    matrix = _matrix(np.linspace(1, 10, SIZE))
    operator = _operator(matrix)
    b = np.random.default_rng(1).normal(size=SIZE)
    found = curvature.solve(
        operator, operator.unflatten(jnp.asarray(b)), damping=damping, tolerance=1e-13
    )
    expected = np.linalg.solve(matrix + damping * np.eye(SIZE), b)
    np.testing.assert_allclose(_flat(found.x), expected, atol=1e-11)
    assert found.residual < 1e-12


def test_a_solution_that_was_cut_short_tells_its_residual(x64: None):
    matrix = _matrix(np.geomspace(1e-6, 1, SIZE))
    operator = _operator(matrix)
    b = np.ones(SIZE)
    found = curvature.solve(operator, operator.unflatten(jnp.asarray(b)), products=5)
    left = np.linalg.norm(b - matrix @ _flat(found.x)) / np.linalg.norm(b)
    assert found.residual == pytest.approx(left, rel=1e-9)
    assert found.residual > 1e-5
    assert found.products == 5


def test_a_right_side_of_zeros_is_solved_by_zeros(x64: None):
    operator = _operator(_matrix(np.arange(1.0, 9.0)))
    found = curvature.solve(operator, operator.unflatten(jnp.zeros(8)))
    assert found.residual == 0.0
    np.testing.assert_array_equal(_flat(found.x), 0)


def test_negative_curvature_is_refused(x64: None):
    operator = _operator(_matrix(np.linspace(-5, -1, 8)))
    with pytest.raises(TransformError, match="take gauss_newton, or a larger damping"):
        curvature.solve(operator, operator.unflatten(jnp.ones(8)))


def test_questions_without_an_answer_are_refused():
    operator, key = _operator(np.eye(8, dtype=np.float32)), jax.random.key(0)
    with pytest.raises(TransformError, match="method 'exact' is not"):
        curvature.trace(operator, key=key, method="exact")
    with pytest.raises(TransformError, match="5 products give no error bar: give 6"):
        curvature.trace(operator, key=key, products=5)
    with pytest.raises(TransformError, match="1 products give no error bar: give 2"):
        curvature.diagonal(operator, key=key, products=1)
    with pytest.raises(TransformError, match="end 'top' is not one of"):
        curvature.eigenpairs(operator, key=key, end="top")
    with pytest.raises(TransformError, match="k is 9: give a number from 1 to 8"):
        curvature.eigenpairs(operator, 9, key=key)
    with pytest.raises(TransformError, match="give a damping from 0 up"):
        curvature.solve(operator, operator.unflatten(jnp.ones(8)), damping=-1.0)
    with pytest.raises(TransformError, match="a product is not finite"):
        curvature.eigenpairs(_operator(np.full((8, 8), np.nan, np.float32)), key=key)
