from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn


def _naive(x, kernel, bias, strides, pads, dilation, groups):
    """The definition, one output element at a time."""
    x = np.pad(np.asarray(x), ((0, 0), *pads, (0, 0)))
    kernel, window = np.asarray(kernel), kernel.shape[:-2]
    features, share = kernel.shape[-1], kernel.shape[-2]
    extent = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    space = [(size - e) // s + 1 for size, e, s in zip(x.shape[1:-1], extent, strides, strict=True)]
    y = np.zeros((x.shape[0], *space, features))
    for n, f in np.ndindex(x.shape[0], features):
        group = f // (features // groups)
        channels = slice(group * share, (group + 1) * share)
        for place in np.ndindex(*space):
            total = bias[f]
            for offset in np.ndindex(*window):
                at = tuple(
                    p * s + o * d
                    for p, s, o, d in zip(place, strides, offset, dilation, strict=True)
                )
                total += np.dot(x[(n, *at, channels)], kernel[(*offset, slice(None), f)])
            y[(n, *place, f)] = total
    return y


# kernel, size of the input, strides, padding as we take it, padding as (before, after), dilation
GEOMETRIES = [
    ((3,), (7,), (1,), "SAME", [(1, 1)], (1,)),
    ((2,), (7,), (3,), "SAME", [(0, 1)], (1,)),
    ((4,), (9,), (2,), "VALID", [(0, 0)], (2,)),
    ((1,), (5,), (2,), "VALID", [(0, 0)], (1,)),
    ((3, 3), (5, 4), (1, 1), "SAME", [(1, 1), (1, 1)], (1, 1)),
    ((3, 2), (5, 6), (2, 1), 2, [(2, 2), (2, 2)], (1, 2)),
    ((2, 3), (4, 5), (1, 2), [(1, 0), (0, 2)], [(1, 0), (0, 2)], (2, 1)),
    ((3, 3), (6, 6), (2, 2), "SAME", [(0, 1), (0, 1)], (1, 1)),
    ((3, 3), (3, 3), (1, 1), "VALID", [(0, 0), (0, 0)], (1, 1)),
    ((2, 2, 2), (3, 4, 3), (1, 2, 1), 1, [(1, 1)] * 3, (2, 1, 1)),
    ((2, 1, 3), (3, 2, 4), (1, 1, 1), "SAME", [(0, 1), (0, 0), (1, 1)], (1, 1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_both_methods_are_the_definition(geometry, x64):
    window, space, strides, padding, pads, dilation = geometry
    random = np.random.default_rng(0)
    x = random.standard_normal((2, *space, 2))
    params = {"kernel": random.standard_normal((*window, 2, 3)), "bias": random.standard_normal(3)}

    @jax.jit
    def by_each_method(params, x):
        return [
            nn.conv(
                3, window, strides=strides, padding=padding, dilation=dilation, method=method
            ).apply(params, (), x)[0]
            for method in ("library", "patches", "auto")
        ]  # fmt: skip

    library, patches, auto = by_each_method(params, x)
    expected = _naive(x, params["kernel"], params["bias"], strides, pads, dilation, groups=1)
    for y in (library, patches, auto):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(library, patches, rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_are_the_definition(groups, x64):
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 4, 3, 4))
    params = {"kernel": random.standard_normal((2, 2, 4 // groups, 8)), "bias": np.zeros(8)}
    y, _ = jax.jit(nn.conv(8, (2, 2), groups=groups, padding=1).apply)(params, (), x)
    expected = _naive(x, params["kernel"], np.zeros(8), (1, 1), [(1, 1)] * 2, (1, 1), groups)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["library", "patches"])
def test_same_padding_keeps_the_size_up_to_the_stride_and_valid_drops_the_rim(method):
    for size, window, stride, dilation in itertools.product((5, 8), (1, 2, 3), (1, 2, 3), (1, 2)):
        for padding, expected in (
            ("SAME", -(-size // stride)),
            ("VALID", -(-(size - (window - 1) * dilation) // stride)),
        ):
            layer = nn.conv(
                2, (window,), strides=stride, dilation=dilation, padding=padding, method=method
            )
            x = jax.ShapeDtypeStruct((1, size, 3), jnp.float32)
            params = {
                "kernel": jax.ShapeDtypeStruct((window, 3, 2), jnp.float32),
                "bias": jax.ShapeDtypeStruct((2,), jnp.float32),
            }
            y = nn.output_spec(layer, params, (), x)
            assert y.shape == (1, expected, 2)


def _primitives(method: str, shape: tuple[int, ...], window: tuple[int, ...] = (3, 3)) -> str:
    layer = nn.conv(8, window, method=method)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, _ = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    return str(jax.make_jaxpr(lambda p, x: layer.apply(p, (), x)[0])(params, x))


def test_auto_takes_patches_while_they_are_small():
    assert "conv_general_dilated" not in _primitives("auto", (2, 8, 8, 1))
    assert "conv_general_dilated" not in _primitives("auto", (64, 8, 8, 32))
    assert "conv_general_dilated" in _primitives("auto", (64, 64, 64, 32))


def test_auto_leaves_a_kernel_of_many_elements_to_the_library():
    assert "conv_general_dilated" in _primitives("auto", (1, 300, 1), (200,))
    assert "conv_general_dilated" not in _primitives("auto", (1, 300, 1), (100,))


@pytest.mark.parametrize("method", ["library", "patches"])
def test_an_input_smaller_than_the_kernel_is_refused_not_emptied(method):
    layer = nn.conv(2, (3, 3), padding="VALID", method=method)
    params = {"kernel": jnp.zeros((3, 3, 1, 2)), "bias": jnp.zeros(2)}
    with pytest.raises(ValueError, match=re.escape("window (3, 3) does not fit an input of size")):
        layer.apply(params, (), jnp.zeros((1, 3, 2, 1)))


def test_groups_are_refused_for_patches():
    layer = nn.conv(4, (2,), groups=2, method="patches")
    with pytest.raises(ValueError, match="'patches' has no groups"):
        layer.apply(
            {"kernel": jnp.zeros((2, 2, 4)), "bias": jnp.zeros(4)}, (), jnp.zeros((1, 3, 4))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": (3, 3, 3, 3)}, "4 axes, not 1, 2 or 3"),
        ({"kernel_size": ()}, "0 axes, not 1, 2 or 3"),
        ({"kernel_size": (3,), "method": "fft"}, "method 'fft' is not"),
        ({"kernel_size": (3,), "groups": 3}, "3 groups do not divide 4 features"),
        ({"kernel_size": (3,), "strides": (1, 1)}, "not one positive number for each of 1 axes"),
        ({"kernel_size": (3,), "strides": 0}, "not one positive number"),
        ({"kernel_size": (3,), "dilation": 0}, "not one positive number"),
    ],
)
def test_what_makes_no_convolution_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.conv(4, **arguments)


def test_channels_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="2 groups do not divide 3 channels"):
        nn.conv(4, (2,), groups=2).init(jax.random.key(0), jnp.zeros((1, 3, 3)))
