"""Who reads whom, seen in the gradient; grouped heads, rotation and the cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)


def _filled(layer: nn.Model, x):
    spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    params, _ = jax.eval_shape(lambda: layer.init(KEY, spec))
    return jax.tree.map(lambda p: jnp.asarray(RANDOM.normal(size=p.shape)), params)


def _x(*shape: int):
    return jnp.asarray(RANDOM.normal(size=shape))


def _who_reads_whom(run, x) -> np.ndarray:
    """(batch, reader, read): whether an output moves with an input of its own example at all."""
    slope = np.abs(np.asarray(jax.jit(jax.jacrev(lambda x: run(x).sum(-1)))(x))).sum(-1) > 0
    return np.stack([slope[row, :, row] for row in range(x.shape[0])])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 9])
def test_a_window_reaches_back_as_far_as_it_says(causal, window, x64):
    layer, x = nn.attention(2, causal=causal, window=window), _x(1, 5, 4)
    params = _filled(layer, x)
    seen = _who_reads_whom(lambda x: layer.apply(params, (), x)[0], x)[0]
    back = np.arange(5)[:, None] - np.arange(5)
    expected = (np.abs(back) < window) & ((back >= 0) | (not causal))
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("is_by_reader", [False, True])
def test_what_is_masked_is_not_read_and_who_may_read_nothing_reads_zeros(is_by_reader, x64):
    layer, x, context = nn.attention(2, use_bias=False), _x(2, 3, 4), _x(2, 4, 6)
    mask = np.array([[True, False, True, True], [False] * 4])
    if is_by_reader:
        mask = np.repeat(mask[:, None], 3, 1)
        mask[0, 1] = [False, True, False, False]
    params = _filled(layer, {"x": x, "context": context})

    def run(context):
        return layer.apply(params, (), {"x": x, "context": context, "mask": jnp.asarray(mask)})[0]

    seen = _who_reads_whom(run, context)
    np.testing.assert_array_equal(seen, mask if is_by_reader else np.repeat(mask[:, None], 3, 1))
    assert not jax.jit(run)(context)[1].any()
    slope = jax.jit(jax.grad(lambda c: jnp.sum(run(c) ** 2)))(context)
    assert np.isfinite(slope).all()


def test_masks_of_every_kind_hold_together(x64):
    layer, x = nn.attention(1, causal=True, window=2), _x(1, 5, 2)
    params = _filled(layer, x)
    segments, mask = np.array([[1, 1, 1, 2, 2]]), np.array([[True, True, False, True, True]])

    def run(x):
        beside = {"segments": jnp.asarray(segments), "mask": jnp.asarray(mask)}
        return layer.apply(params, (), {"x": x, **beside})[0]

    back = np.arange(5)[:, None] - np.arange(5)
    expected = (back >= 0) & (back < 2) & (segments[0][:, None] == segments[0]) & mask
    # Position 2 is not read, yet moves its own output: it asks.
    # With one to read, the weight is 1 whatever is asked.
    asks = np.diag(expected.sum(1) > 1)
    np.testing.assert_array_equal(_who_reads_whom(run, x)[0], expected | asks)


def test_grouped_heads_are_heads_whose_keys_and_values_repeat(maybe_jit, x64):
    grouped, full, x = nn.attention(4, kv_heads=2), nn.attention(4), _x(2, 3, 8)
    params = _filled(grouped, x)
    assert params["key"]["kernel"].shape == (8, 4)

    def repeated(leaf):
        heads = leaf.reshape(*leaf.shape[:-1], 2, 2)
        return jnp.repeat(heads, 2, axis=-2).reshape(*leaf.shape[:-1], 8)

    wide = params | {name: jax.tree.map(repeated, params[name]) for name in ("key", "value")}
    y, _ = maybe_jit(grouped.apply)(params, (), x)
    np.testing.assert_allclose(y, full.apply(wide, (), x)[0], rtol=1e-12)


def test_rotary_products_see_distances_only(x64):
    query, key = _x(1, 2, 1, 6), _x(1, 2, 1, 6)

    def product(a, b):
        at = [nn.rotary(each, jnp.array([[p]]), base=50.0) for each, p in ((query, a), (key, b))]
        return jnp.vdot(*at)

    np.testing.assert_allclose(product(3, 1), product(102, 100), rtol=1e-10)
    assert abs(float(product(3, 1) - product(3, 2))) > 1e-3
    np.testing.assert_allclose(product(7, 7), jnp.vdot(query, key), rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2, "rotary": 50.0, "window": 3}], ids=str)
def test_new_positions_on_a_cache_are_the_same_as_all_at_once(options, x64):
    whole = nn.attention(4, causal=True, **options)
    decoder = nn.attention(4, causal=True, cache=8, **options)
    x = _x(2, 6, 8)
    params = _filled(whole, x)
    expected, _ = jax.jit(whole.apply)(params, (), x)
    made, empty = jax.jit(lambda: decoder.init(KEY, x))()
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    apply = jax.jit(decoder.apply)
    for pieces in ([1] * 6, [4, 1, 1], [6]):
        cache, start = empty, 0
        for length in pieces:
            positions = np.broadcast_to(np.arange(start, start + length), (2, length))
            piece = {"x": x[:, start : start + length], "positions": jnp.asarray(positions)}
            y, cache = apply(params, cache, piece)
            np.testing.assert_allclose(y, expected[:, start : start + length], rtol=1e-11)
            start += length
        assert not cache["key"][:, :, 6:].any()


def test_a_position_outside_the_cache_gives_nan_and_overwrites_nothing(maybe_jit, x64):
    layer, x = nn.attention(1, causal=True, cache=2), _x(1, 2, 2)
    params, cache = layer.init(KEY, x)
    apply = maybe_jit(layer.apply)
    _, cache = apply(params, cache, {"x": x, "positions": jnp.array([[0, 1]])})
    y, after = apply(params, cache, {"x": 5 * x, "positions": jnp.array([[2, -1]])})
    assert np.isnan(y).all()
    np.testing.assert_array_equal(after["key"], cache["key"])


def test_a_cache_of_more_bits_serves_a_layer_of_fewer():
    layer = nn.attention(1, causal=True, cache=2)
    params, cache = layer.init(KEY, jax.ShapeDtypeStruct((1, 1, 2), jnp.float32))
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = {"x": jnp.ones((1, 1, 2), jnp.bfloat16), "positions": jnp.zeros((1, 1), jnp.int32)}
    y, after = layer.apply(half, cache, x)
    assert (y.dtype, after["key"].dtype) == (jnp.bfloat16, jnp.float32)


ONE = jnp.ones((1, 2, 4))
TWO = jnp.zeros((1, 2), jnp.int32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.attention(4, kv_heads=3), "3 kv_heads do not divide 4 heads"),
        (lambda: nn.attention(4, window=0), "a window of 0 reads nothing"),
        (lambda: nn.attention(4, cache=3), "give causal=True with it"),
        (lambda: nn.attention(4, rotary=10.0).init(KEY, ONE) and _run(rotary=10.0), "even width"),
        (lambda: _run(causal=True, context=ONE), "have no order"),
        (lambda: _run(context=ONE, segments=TWO), "have no order"),
        (lambda: _run(causal=True, cache=3), "a dict of x and positions, not of x"),
        (lambda: _run(causal=True, cache=3, positions=TWO, segments=TWO), "not of x, positions"),
        (lambda: _run(mask=TWO), "give booleans"),
        (lambda: _run(segment=TWO), "a dict of 'segment', 'x': give x and, beside it, context"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()


def _run(causal=False, cache=None, rotary=None, **given):
    layer = nn.attention(4, causal=causal, cache=cache, rotary=rotary)
    params, state = layer.init(KEY, ONE)
    return layer.apply(params, state, nn.together(ONE, given))
