from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn


def _naive(x, window, strides, pads, reduce):
    """One window at a time; padding is NaN, which ``reduce`` leaves out."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.nan)
    space = [(size - w) // s + 1 for size, w, s in zip(x.shape[1:-1], window, strides, strict=True)]
    y = np.empty((x.shape[0], *space, x.shape[-1]))
    for place in np.ndindex(*space):
        at = tuple(slice(p * s, p * s + w) for p, s, w in zip(place, strides, window, strict=True))
        y[(slice(None), *place)] = reduce(x[(slice(None), *at)], tuple(range(1, 1 + len(window))))
    return y


# window, strides, padding as we take it, padding as (before, after), size of the input
GEOMETRIES = [
    ((2, 2), None, "VALID", [(0, 0), (0, 0)], (4, 6)),  # tiles
    ((2, 2), None, "VALID", [(0, 0), (0, 0)], (5, 4)),  # leaves a row over
    ((2, 2), None, "SAME", [(0, 1), (0, 0)], (5, 4)),
    ((3, 2), (1, 2), "SAME", [(1, 1), (0, 0)], (4, 4)),  # overlaps
    ((3,), (2,), 1, [(1, 1)], (7,)),
    ((2,), (3,), "VALID", [(0, 0)], (8,)),  # skips
    ((2, 1, 2), None, [(0, 0), (0, 0), (1, 1)], [(0, 0), (0, 0), (1, 1)], (4, 2, 2)),
    ((4,), None, "VALID", [(0, 0)], (4,)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pooling_is_the_definition_and_padding_counts_for_nothing(geometry, x64):
    window, strides, padding, pads, space = geometry
    x = np.random.default_rng(0).standard_normal((2, *space, 3)) - 5  # a zero would win the maximum
    pools = [make(window, strides=strides, padding=padding) for make in (nn.max_pool, nn.avg_pool)]
    results = jax.jit(lambda x: [pool.apply({}, (), x)[0] for pool in pools])(x)
    for y, reduce in zip(results, (np.nanmax, np.nanmean), strict=True):
        expected = _naive(x, window, strides or window, pads, reduce)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [nn.max_pool, nn.avg_pool], ids=["max", "avg"])
def test_tiles_give_the_values_and_gradients_of_the_window_reduction(make, x64):
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 2))
    weight = np.random.default_rng(1).standard_normal((2, 2, 2, 2))
    # A row of zeros below that no window reaches keeps the same windows off the tiled path.
    longer = np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))

    def both(x, longer):
        def value(x):
            y = make((2, 3)).apply({}, (), x)[0]
            return jnp.sum(y * weight), y

        return [jax.value_and_grad(value, has_aux=True)(x) for x in (x, longer)]

    ((_, y_tiled), g_tiled), ((_, y), g) = jax.jit(both)(x, longer)
    primitives = [str(jax.make_jaxpr(make((2, 3)).apply)({}, (), x)) for x in (x, longer)]
    assert ["reduce_window" in text for text in primitives] == [False, True]
    np.testing.assert_allclose(y_tiled, y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(g_tiled, g[:, :-1], rtol=0, atol=1e-12)


def test_tied_maxima_share_the_gradient_of_a_tile():
    gradient = jax.grad(lambda x: nn.max_pool((2, 2)).apply({}, (), x)[0].sum())
    assert gradient(jnp.ones((1, 2, 2, 1))).ravel().tolist() == [0.25] * 4


def test_a_not_a_number_is_not_pooled_away(maybe_jit):
    x = jnp.ones((1, 4, 1)).at[0, 1].set(jnp.nan)
    for strides in ((2,), (1,)):
        pool = nn.max_pool((2,), strides=strides)
        y = maybe_jit(lambda x, pool=pool: pool.apply({}, (), x)[0])(x)
        assert np.isnan(y[0, 0, 0])
        assert y[0, -1, 0] == 1


def test_global_pooling_joins_all_space(maybe_jit, x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 5)))
    mean = maybe_jit(nn.global_avg_pool().apply)({}, (), x)[0]
    largest = maybe_jit(nn.global_max_pool().apply)({}, (), x)[0]
    np.testing.assert_allclose(mean, x.mean((1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(largest, x.max((1, 2)))


@pytest.mark.parametrize("make", [nn.max_pool, nn.avg_pool], ids=["max", "avg"])
def test_the_output_has_the_size_that_the_arithmetic_gives(make):
    for size, window, stride in itertools.product((4, 7, 9), (1, 2, 3), (1, 2, 3)):
        for padding, expected in (
            ("SAME", -(-size // stride)),
            ("VALID", (size - window) // stride + 1),
            (1, (size + 2 - window) // stride + 1),
        ):
            pool = make((window,), strides=(stride,), padding=padding)
            spec = jax.ShapeDtypeStruct((2, size, 3), jnp.float32)
            assert nn.output_spec(pool, {}, (), spec).shape == (2, expected, 3)


@pytest.mark.parametrize("make", [nn.max_pool, nn.avg_pool], ids=["max", "avg"])
def test_windows_that_do_not_fit_are_refused(make):
    def apply(window: Sequence[int], shape: tuple[int, ...], **options):
        return make(window, **options).apply({}, (), jnp.zeros(shape))

    with pytest.raises(ValueError, match=r"window .* does not fit an input of size"):
        apply((3,), (1, 2, 1))
    with pytest.raises(ValueError, match="does not fit an input of shape"):
        apply((2,), (1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"strides .* do not fit the window"):
        make((2, 2), strides=(1,))


@pytest.mark.parametrize(
    "geometry", [each for each in GEOMETRIES if each[1] is not None or each[2] == "SAME"], ids=str
)
def test_the_first_maximum_of_a_window_takes_its_gradient_among_equals_too(geometry, x64):
    """Against a loop over windows, on small whole numbers, of which many are equal."""
    window, strides, padding, pads, space = geometry
    random = np.random.default_rng(0)
    x = random.integers(-2, 2, (2, *space, 3)).astype(float)
    pool = nn.max_pool(window, strides=strides, padding=padding)
    y, pull = jax.vjp(jax.jit(lambda x: pool.apply({}, (), x)[0]), jnp.asarray(x))
    slope = random.standard_normal(y.shape)
    strides = strides or window
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    expected, values = np.zeros_like(padded), np.zeros_like(slope)
    for row, *place, channel in np.ndindex(*slope.shape):
        at = tuple(slice(p * s, p * s + w) for p, s, w in zip(place, strides, window, strict=True))
        seen = padded[(row, *at, channel)]
        first = np.unravel_index(np.argmax(seen), seen.shape)
        values[(row, *place, channel)] = seen[first]
        expected[(row, *at, channel)][first] += slope[(row, *place, channel)]
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pads, space, strict=True))
    np.testing.assert_array_equal(y, values)
    np.testing.assert_allclose(
        pull(jnp.asarray(slope))[0], expected[:, *inside], rtol=0, atol=1e-12
    )


def test_a_value_that_is_not_a_number_is_not_lost_on_the_way_to_a_gradient():
    x = jnp.array([1.0, np.nan, 0.0, 2.0, 3.0]).reshape(1, 5, 1)
    pool = nn.max_pool((3,), strides=(1,))
    (y, _) = jax.jvp(lambda x: pool.apply({}, (), x)[0], (x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(y[0, :, 0], [np.nan, np.nan, 3.0])
