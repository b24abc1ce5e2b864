from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn, program

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)


def _filled(layer: nn.Model, *shape: int, dtype: type = np.float64):
    spec = jax.ShapeDtypeStruct(shape, dtype)
    params, _ = jax.eval_shape(lambda: layer.init(KEY, spec))
    params = jax.tree.map(lambda p: jnp.asarray(RANDOM.normal(size=p.shape), dtype), params)
    return params, jnp.asarray(RANDOM.normal(size=shape), dtype)


def _who_reads_whom(layer: nn.Model, length: int) -> np.ndarray:
    """(reader, read): whether an output moves with an input at all."""
    params, x = _filled(layer, 2, length, 4)
    slope = jax.jit(jax.jacrev(lambda x: layer.apply(params, (), x)[0].sum((0, 2))))(x)
    return np.abs(slope).sum((1, 3)) > 0


def test_a_causal_position_reads_itself_and_those_before_it(x64):
    seen = _who_reads_whom(nn.attention(2, causal=True), 5)
    np.testing.assert_array_equal(seen, np.tri(5, dtype=bool))


def test_without_causality_every_position_reads_every_other(x64):
    assert _who_reads_whom(nn.attention(2), 5).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_the_heads_are_those_of_jaxs_own_attention(heads, causal, maybe_jit, x64):
    layer = nn.attention(heads, causal=causal)
    params, x = _filled(layer, 2, 5, 6)
    query, key, value = (
        (x @ params[name]["kernel"] + params[name]["bias"][None, None]).reshape(2, 5, heads, -1)
        for name in ("query", "key", "value")
    )
    with jax.numpy_dtype_promotion("standard"):  # JAX's own does not keep to the strict one
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=causal)
    expected = mixed.reshape(2, 5, 6) @ params["out"]["kernel"] + params["out"]["bias"][None, None]
    y, _ = maybe_jit(layer.apply)(params, (), x)
    # JAX's own rounds its weights to float32, whatever comes in.
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_one_head_by_hand(maybe_jit, x64):
    """Two positions, width 1, all kernels 1: the weights are exp(x_l x_m), normalised."""
    layer = nn.attention(1, use_bias=False)
    params = {name: {"kernel": jnp.ones((1, 1))} for name in ("query", "key", "value", "out")}
    y, _ = maybe_jit(layer.apply)(params, (), jnp.array([[[1.0], [2.0]]]))
    e = np.e
    expected = [(e + 2 * e**2) / (e + e**2), (e**2 + 2 * e**4) / (e**2 + e**4)]
    np.testing.assert_allclose(y[0, :, 0], expected, rtol=1e-12)


def test_normed_queries_and_keys_have_directions_only(maybe_jit, x64):
    """Kernels may grow, the weights stay; with scales of 0 everything is read alike."""
    layer = nn.attention(2, qk_norm=True, use_bias=False, rotary=100.0)
    params, x = _filled(layer, 2, 5, 8)
    run = maybe_jit(lambda params: layer.apply(params, (), x)[0])
    grown = {**params, "query": {"kernel": 1e3 * params["query"]["kernel"]}}
    np.testing.assert_allclose(run(grown), run(params), rtol=1e-5, atol=1e-6)
    even = {**params, "key_norm": {"scale": jnp.zeros(4)}}
    mean = jnp.mean(x @ params["value"]["kernel"], axis=1, keepdims=True) @ params["out"]["kernel"]
    np.testing.assert_allclose(run(even), jnp.broadcast_to(mean, x.shape), rtol=1e-9)
    assert params["query_norm"]["scale"].shape == (4,)


def test_normed_queries_and_keys_by_hand(maybe_jit, x64):
    """Two positions, one head of width 2: norms of √2, scores of 2 cos(angle) / √2."""
    layer = nn.attention(1, qk_norm=True, use_bias=False)
    params = {name: {"kernel": jnp.eye(2)} for name in ("query", "key", "value", "out")}
    params |= {name: {"scale": jnp.ones(2)} for name in ("query_norm", "key_norm")}
    y, _ = maybe_jit(layer.apply)(params, (), jnp.array([[[5.0, 0.0], [0.0, 0.1]]]))
    high = np.exp(np.sqrt(2)) / (np.exp(np.sqrt(2)) + 1)
    np.testing.assert_allclose(y[0, 0], [5 * high, 0.1 * (1 - high)], rtol=1e-4)


def test_without_order_the_positions_are_a_set(x64):
    layer, order = nn.attention(2), np.array([3, 0, 2, 1])
    params, x = _filled(layer, 1, 4, 6)
    y, z = (layer.apply(params, (), each)[0] for each in (x, x[:, order]))
    np.testing.assert_allclose(y[:, order], z, rtol=1e-12)


def test_large_scores_and_few_bits_stay_finite(maybe_jit):
    layer = nn.attention(1, causal=True, use_bias=False)
    params, x = _filled(layer, 1, 4, 2, dtype=np.float16)
    y, _ = maybe_jit(layer.apply)(params, (), 50 * x)
    assert y.dtype == jnp.float16
    assert np.isfinite(y).all()


def test_dropout_takes_weights_away_and_keeps_their_mean():
    layer = nn.attention(1, dropout=0.5, use_bias=False)
    params = {name: {"kernel": jnp.zeros((1, 1))} for name in ("query", "key")}
    params |= {name: {"kernel": jnp.ones((1, 1))} for name in ("value", "out")}
    x = jnp.ones((200, 16, 1))
    y, _ = jax.jit(lambda x: layer.apply(params, (), x, key=KEY, train=True))(x)
    # 16 equal weights, each kept with probability 1/2 and doubled: a binomial over 8.
    assert float(jnp.mean(y)) == pytest.approx(1, abs=4 * 0.25 / np.sqrt(200 * 16))
    assert float(jnp.std(y)) == pytest.approx(0.25, rel=0.1)
    assert (layer.apply(params, (), x)[0] == 1).all()


def test_attention_counts_its_products():
    layer = nn.attention(4, causal=True, use_bias=False)
    spec = jax.ShapeDtypeStruct((2, 256, 512), jnp.float32)
    params, _ = jax.eval_shape(lambda: layer.init(KEY, spec))
    counted = program.flops(lambda p, x: layer.apply(p, (), x)[0], params, spec)
    products = 2 * 2 * 256 * 512 * (4 * 512 + 2 * 256)
    assert products <= counted <= 1.01 * products


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide a width of 4"):
        _filled(nn.attention(3), 1, 2, 4)


def test_every_position_has_its_row(maybe_jit):
    layer = nn.position_embedding(4)
    table = jnp.arange(8.0).reshape(4, 2)
    y, _ = maybe_jit(layer.apply)({"embedding": table}, (), jnp.ones((2, 3, 2)))
    assert y.tolist() == [[[1, 2], [3, 4], [5, 6]]] * 2


def test_an_input_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="5 positions, the table 4 rows"):
        nn.position_embedding(4).apply({"embedding": jnp.ones((4, 2))}, (), jnp.ones((1, 5, 2)))


SEGMENTS = np.array([1, 1, 2, 2, 2, 0])


@pytest.mark.parametrize("causal", [False, True])
def test_a_position_reads_from_its_own_segment_only(causal, x64):
    layer = nn.attention(2, causal=causal)
    segments = jnp.asarray([SEGMENTS, SEGMENTS])

    def apply(params, model_state, x):
        return layer.apply(params, model_state, {"x": x, "segments": segments})

    seen = _who_reads_whom(nn.Model(layer.init, apply), 6)
    same = SEGMENTS[:, None] == SEGMENTS
    np.testing.assert_array_equal(seen, same & np.tri(6, dtype=bool) if causal else same)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_segments_in_a_row_are_sequences_by_themselves(dtype, maybe_jit, x64):
    layer = nn.attention(2, causal=True)
    params, x = _filled(layer, 1, 6, 4, dtype=dtype)
    y, _ = maybe_jit(layer.apply)(params, (), {"x": x, "segments": jnp.asarray(SEGMENTS)[None]})
    assert y.dtype == dtype
    apply = jax.jit(layer.apply)
    for start, stop in ((0, 2), (2, 5), (5, 6)):
        alone, _ = apply(params, (), x[:, start:stop])
        tolerance = 1e-2 if dtype == np.float16 else 1e-12
        np.testing.assert_allclose(y[:, start:stop], alone, rtol=tolerance, atol=tolerance)


def test_a_dict_of_specs_initialises_what_an_array_does():
    spec = jax.ShapeDtypeStruct((1, 6, 4), jnp.float32)
    whole = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    for layer, name in ((nn.attention(2), "segments"), (nn.position_embedding(6), "positions")):
        one, other = layer.init(KEY, spec)[0], layer.init(KEY, {"x": spec, name: whole})[0]
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_positions_may_be_given_and_one_outside_the_table_is_no_neighbour(maybe_jit):
    table = {"embedding": jnp.arange(8.0).reshape(4, 2)}
    x = {"x": jnp.ones((1, 5, 2)), "positions": jnp.array([[0, 3, 0, -1, 4]])}
    y, _ = maybe_jit(nn.position_embedding(4).apply)(table, (), x)
    assert y[0, :3].tolist() == [[1, 2], [7, 8], [1, 2]]
    assert np.isnan(y[0, 3:]).all()
