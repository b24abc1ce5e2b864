"""Posteriors in closed form: linear regression, and explicit Jacobians."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.transforms import TransformError, curvature

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def _line(params, batch):
    return batch["x"] @ params["slope"] + params["offset"][None]


def _noise_of_half(z, batch):
    return jnp.sum((z - batch["y"]) ** 2, -1) / (2 * 0.25)


def _regression():
    generator = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(generator.normal(size=(11, 2))),
        "y": jnp.asarray(generator.normal(size=(11, 1))),
    }
    return {"offset": jnp.zeros(1), "slope": jnp.zeros((2, 1))}, batch


def test_the_full_posterior_of_a_linear_model_is_bayesian_linear_regression(x64: None):
    params, batch = _regression()
    posterior = curvature.laplace(
        _line, _noise_of_half, params, batch, prior_precision=3.0, structure="full"
    )
    design = np.concatenate([np.ones((11, 1)), batch["x"]], axis=1)
    covariance = np.linalg.inv(design.T @ design / 0.25 + 3.0 * np.eye(3))
    new = np.random.default_rng(1).normal(size=(5, 2))
    found = posterior.predict({"x": jnp.asarray(new)})
    rows = np.concatenate([np.ones((5, 1)), new], axis=1)
    expected = np.einsum("np,pq,nq->n", rows, covariance, rows)
    np.testing.assert_allclose(found.variance[:, 0], expected, atol=1e-12)
    assert found.mean.shape == (5, 1)


def test_batches_and_weights_count_in_the_posterior(x64: None):
    params, batch = _regression()
    whole = batch | {"weight": jnp.ones(11)}
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:1]]), whole)
    padded["weight"] = padded["weight"].at[11].set(0.0)
    halves = [jax.tree.map(lambda leaf, at=at: leaf[at : at + 6], padded) for at in (0, 6)]
    options: dict[str, Any] = {"prior_precision": 1.0, "examples_at_once": 4}
    one = curvature.laplace(_line, _noise_of_half, params, whole, **options)
    other = curvature.laplace(_line, _noise_of_half, params, halves, **options)
    np.testing.assert_allclose(one.precision, other.precision, atol=1e-12)


def test_both_structures_are_those_of_the_explicit_gauss_newton_matrix(tied):
    matrix = curvature.gauss_newton(
        tied.outputs, tied.losses, tied.params, tied.batch, reduction="sum"
    )
    dense = np.asarray(matrix.dense())
    prior: dict[str, Any] = {"prior_precision": 0.3}
    diagonal = curvature.laplace(tied.outputs, tied.losses, tied.params, tied.batch, **prior)
    full = curvature.laplace(
        tied.outputs, tied.losses, tied.params, tied.batch, structure="full", **prior
    )
    np.testing.assert_allclose(diagonal.precision, np.diag(dense) + 0.3, atol=1e-10)
    factor = np.asarray(full.precision)
    np.testing.assert_allclose(factor @ factor.T, dense + 0.3 * np.eye(len(dense)), atol=1e-10)


def test_a_last_layer_leaves_the_others_certain(x64: None):
    params, batch = _regression()
    posterior = curvature.laplace(
        _line, _noise_of_half, params, batch, prior_precision=1.0, structure="full", parts=["slope"]
    )
    assert posterior.names == ("slope",)
    assert posterior.precision.shape == (2, 2)
    at_zero = posterior.predict({"x": jnp.zeros((1, 2))})
    np.testing.assert_array_equal(at_zero.variance, 0)


def test_a_posterior_that_cannot_be_is_refused():
    params, batch = {"slope": jnp.zeros((2, 1)), "offset": jnp.zeros(1)}, {"x": jnp.ones((3, 2))}
    batch["y"] = jnp.ones((3, 1))

    def posterior(**options):
        given: dict[str, Any] = {"prior_precision": 1.0, **options}
        return curvature.laplace(_line, _noise_of_half, params, batch, **given)

    with pytest.raises(TransformError, match="structure 'kron' is not"):
        posterior(structure="kron")
    with pytest.raises(TransformError, match="prior_precision is 0: give a number above 0"):
        posterior(prior_precision=0.0)
    with pytest.raises(TransformError, match="parts 'head' names no parameter: give patterns of"):
        posterior(parts=["head"])


def test_a_full_matrix_that_is_too_large_is_refused():
    params = {"slope": jnp.zeros((20_001, 1)), "offset": jnp.zeros(1)}
    batch = {"x": jnp.zeros((1, 20_001)), "y": jnp.zeros((1, 1))}
    with pytest.raises(TransformError, match="a full matrix of 20002 parameters is too large"):
        curvature.laplace(
            _line, _noise_of_half, params, batch, prior_precision=1.0, structure="full"
        )
