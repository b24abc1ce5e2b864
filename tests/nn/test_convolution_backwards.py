"""Transposed convolution is what its definition says: the way back of ``conv``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
# kernel, size of the larger side, strides, padding, dilation, groups
GEOMETRIES = [
    ((3,), (7,), (1,), "SAME", (1,), 1),
    ((2,), (8,), (4,), "SAME", (1,), 1),
    ((4, 3), (6, 8), (2, 4), "SAME", (1, 2), 2),
    ((3, 2), (7, 6), (2, 2), "VALID", (1, 1), 1),
    ((3, 3), (7, 5), (2, 1), [(1, 0), (0, 2)], (1, 2), 2),
    ((2, 2, 2), (4, 5, 4), (2, 1, 2), 1, (1, 1, 1), 1),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_it_is_the_gradient_of_a_convolution_in_its_input(geometry, x64):
    window, large, strides, padding, dilation, groups = geometry
    shape = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    random = np.random.default_rng(0)
    forward = nn.conv(4, window, use_bias=False, method="library", **shape)
    x = jnp.asarray(random.normal(size=(2, *large, 6)))
    kernel = jnp.asarray(random.normal(size=(*window, 6 // groups, 4)))

    def apply(x):
        return forward.apply({"kernel": kernel}, (), x)[0]

    given = jnp.asarray(random.normal(size=jax.eval_shape(apply, x).shape))
    (expected,) = jax.jit(lambda given: jax.vjp(apply, x)[1](given))(given)

    # Its input channels are the other's output channels: the kernel's last two axes change places
    # within each group.
    split = kernel.reshape(*window, 6 // groups, groups, 4 // groups)
    turned = jnp.moveaxis(split, (-3, -2, -1), (-1, -2, -3)).reshape(*window, 4 // groups, 6)
    sizes = nn.output_spec(
        nn.conv_transpose(6, window, use_bias=False, **shape), {"kernel": turned}, (), given
    ).shape[1:-1]
    extra = [wanted - got for wanted, got in zip(large, sizes, strict=True)]
    assert padding != "SAME" or not any(extra)
    if any(extra):
        shape["output_padding"] = extra
    layer = nn.conv_transpose(6, window, use_bias=False, **shape)
    got, _ = jax.jit(layer.apply)({"kernel": turned}, (), given)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.conv_transpose(2, ()), "has 0 axes, not 1, 2 or 3"),
        (lambda: nn.conv_transpose(3, (2,), groups=2), "2 groups do not divide 3 features"),
        (lambda: nn.conv_transpose(2, (2,), groups=2).init(KEY, jnp.ones((1, 2, 3))), "3 channels"),
        (lambda: nn.conv_transpose(2, (2,), strides=0), "not one positive number"),
        (lambda: nn.conv_transpose(2, (2,), padding=0, output_padding=1), "not below strides"),
        (lambda: nn.conv_transpose(2, (2,), strides=2, output_padding=1), "settles the output"),
        (lambda: _run(nn.conv_transpose(2, (1,), padding=1)), "leaves nothing"),
        (lambda: nn.adaptive_avg_pool(()), "not one positive number per spatial axis"),
        (lambda: nn.adaptive_max_pool((2, 0)), "not one positive number per spatial axis"),
        (lambda: _run(nn.adaptive_avg_pool((2, 2))), r"does not fit an input of shape \(1, 2, 1\)"),
        (lambda: nn.stochastic_depth(1.0), r"rate 1.0 is not in \[0, 1\)"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()


def _run(layer: nn.Model):
    x = jnp.ones((1, 2, 1))
    return layer.apply(layer.init(KEY, x)[0], (), x)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    layer = nn.stochastic_depth(0.25)
    y, _ = layer.apply((), (), jnp.ones((4000, 3)), key=KEY, train=True)
    rows = np.asarray(y)
    assert ((rows == 0).all(1) | (rows == np.float32(1 / 0.75)).all(1)).all()
    # A binomial of 4000 with probability 0.75, scaled up.
    assert rows.mean() == pytest.approx(1, abs=4 * np.sqrt(0.25 / 0.75 / 4000))
    with pytest.raises(nn.LayerError, match="needs a key"):
        layer.apply((), (), jnp.ones((2, 3)), train=True)


def test_a_character_outside_the_vocabulary_is_nobody(maybe_jit):
    y, _ = maybe_jit(nn.one_hot(3).apply)({}, (), jnp.array([2, 3, -1], jnp.int8))
    assert y[0].tolist() == [0, 0, 1]
    assert np.isnan(y[1:]).all()


@pytest.mark.parametrize("make", [nn.rms_norm, nn.instance_norm])
def test_norms_do_not_change_with_the_scale_of_their_input(make, x64):
    layer = make(epsilon=0.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)))
    params, _ = layer.init(KEY, x)
    y, z = (layer.apply(params, (), scale * x)[0] for scale in (1, 7))
    np.testing.assert_allclose(y, z, rtol=1e-12)
    axes = -1 if make is nn.rms_norm else 1
    np.testing.assert_allclose(jnp.mean(y**2, axes), 1, rtol=1e-12)
