from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn


def test_dense_is_a_matrix_product_and_a_bias(maybe_jit, x64):
    random = np.random.default_rng(0)
    kernel, bias, x = (random.normal(size=size) for size in ((3, 4), 4, (2, 5, 3)))
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    y, _ = maybe_jit(nn.dense(4).apply)(params, (), jnp.asarray(x))
    expected = np.einsum("bsi,io->bso", x, kernel) + bias
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


def test_the_kernel_of_a_dense_layer_keeps_the_variance_of_its_input():
    params, _ = nn.dense(300).init(jax.random.key(0), jax.ShapeDtypeStruct((1, 400), jnp.float32))
    assert float(jnp.var(params["kernel"])) == pytest.approx(1 / 400, rel=0.02)
    assert not params["bias"].any()


TABLE = {"embedding": jnp.arange(12.0).reshape(6, 2)}


@pytest.mark.parametrize("outside", [-1, -6, -7, 6, 7, 2**31 - 1, -(2**31)])
def test_an_index_outside_the_table_gives_nan_and_never_a_neighbour(outside, maybe_jit):
    y, _ = maybe_jit(nn.embedding(6, 2).apply)(TABLE, (), jnp.array([0, outside, 5]))
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[jnp.array([0, 2])], [[0, 1], [10, 11]])


@pytest.mark.parametrize("vocabulary", [256, 300])
def test_bytes_are_indices_of_a_table_of_any_size(vocabulary, maybe_jit):
    """In uint8, 256 is 0 and 300 is 44: comparisons must be made in wider integers."""
    table = jnp.arange(vocabulary, dtype=jnp.float32)[:, None]
    tokens = jnp.arange(256, dtype=jnp.uint8)
    y, _ = maybe_jit(nn.embedding(vocabulary, 1).apply)({"embedding": table}, (), tokens)
    np.testing.assert_array_equal(y, table[:256])


def test_the_gradient_of_a_table_counts_the_uses_of_each_row(maybe_jit):
    def total(params):
        return nn.embedding(6, 2).apply(params, (), jnp.array([4, 1, 4, 9, -1]))[0][:3].sum()

    gradient = maybe_jit(jax.grad(total))(TABLE)["embedding"]
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 0, 2, 0])


def test_the_table_has_the_dtype_that_was_asked_for():
    spec = jax.ShapeDtypeStruct((3,), jnp.int32)
    params, _ = nn.embedding(4, 2, dtype=jnp.bfloat16).init(jax.random.key(0), spec)
    assert params["embedding"].dtype == jnp.bfloat16
