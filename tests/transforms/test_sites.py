"""The rules of products, convolutions and look-ups, against autodiff of the operation itself."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from functorch_kit.transforms import sites
from functorch_kit.transforms.flat import evaluate, execute, trace
from functorch_kit.transforms.sites import Meeting, Site, has_rule

pytestmark = pytest.mark.usefixtures("compiled_quickly")

PRODUCTS = ["td,dp->tp", "td,pd->tp", "dt,pd->tp", "dp,td->pt", "abc,cdb->ad", "abcd,dceb->ae"]
CONVOLUTIONS = {
    "plain": {"padding": "SAME"},
    "strided": {"padding": [(1, 0), (2, 1)], "window_strides": (2, 3)},
    "dilated": {"padding": "VALID", "rhs_dilation": (2, 1)},
    "transposed": {"padding": [(1, 2), (0, 1)], "lhs_dilation": (2, 3)},
    "cut": {"padding": [(-1, 0), (0, -1)]},
    "grouped": {"padding": "SAME", "feature_group_count": 2},
    "depthwise": {"padding": "SAME", "feature_group_count": 4},
    "channels_first": {"padding": "SAME", "dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    "odd_layout": {"padding": "SAME", "dimension_numbers": ("HNWC", "IOWH", "CWNH")},
}


def _normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _check(function, x: jax.Array, kernel: jax.Array) -> None:
    """``function(x, kernel)`` for three examples: gradients, norms and sums by rule."""
    flat, _ = trace(function, x[0], kernel)
    step = next(step for step in reversed(flat.steps) if has_rule(step, _position(step, kernel)))
    position = _position(step, kernel)
    site = Site(0, step, position, 0, ())
    shapes = [step.operand(at).shape for at in range(2)]
    met = jax.vmap(lambda x: _operand(flat, step, position, x, kernel))(x)
    assert met.shape[1:] == shapes[1 - position]
    g = _normal(3, 3, *step.result().shape)

    def output(kernel, x):
        return execute(step, [x, kernel] if position == 1 else [kernel, x])[0]

    weight = jnp.zeros(shapes[position])  # of a linear function it makes no difference
    each = jax.vmap(lambda x, g: jax.vjp(lambda k: output(k, x), weight)[1](g)[0])(met, g)
    meeting = Meeting(site, met, g)
    np.testing.assert_allclose(meeting.gradients(), each, atol=1e-12)
    norms = np.sum(np.asarray(each).reshape(3, -1) ** 2, 1)
    np.testing.assert_allclose(meeting.squared_norms(), norms, rtol=1e-12)
    factors = jnp.array([0.5, 0.0, -2.0])
    expected = np.tensordot(factors, each, 1)
    np.testing.assert_allclose(meeting.weighted_sum(factors), expected, atol=1e-12)


def _position(step, kernel: jax.Array) -> int:
    sizes = [step.operand(at).size for at in range(len(step.inputs))]
    return 1 if len(sizes) < 2 or sizes[1] == kernel.size else 0


def _operand(flat, step, position: int, x, kernel):
    at = flat._replace(outputs=(step.inputs[1 - position],))
    return evaluate(at, [x, kernel])[0]


@pytest.mark.parametrize("formula", PRODUCTS)
def test_products_of_any_layout_follow_their_rule(formula: str, x64: None):
    sizes = dict(zip(string.ascii_lowercase, range(2, 30), strict=False))
    sizes |= {"a": 4, "b": 2, "c": 3, "d": 5, "e": 6, "t": 7, "p": 3}
    left, right = formula.split("->")[0].split(",")
    x, kernel = (
        _normal(at, *(sizes[letter] for letter in letters))
        for at, letters in enumerate((left, right))
    )
    _check(lambda x, kernel: jnp.einsum(formula, x, kernel), jnp.stack([x, -x, 2 * x + 1]), kernel)


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_of_any_kind_follow_their_rule(
    options: dict, monkeypatch: pytest.MonkeyPatch, x64: None
):
    # So that the patches of these small ones, too, come in several pieces of several elements.
    monkeypatch.setattr(sites, "_FEATURES_OF_A_PIECE", 8)
    numbers = options.get("dimension_numbers", ("NHWC", "HWIO", "NHWC"))
    groups = options.get("feature_group_count", 1)
    sizes = {"N": 2, "H": 5, "W": 6, "C": 4}
    kernel_sizes = {"H": 3, "W": 2, "I": 4 // groups, "O": 8}
    x = _normal(0, 3, *(sizes[letter] for letter in numbers[0]))
    kernel = _normal(1, *(kernel_sizes[letter] for letter in numbers[1]))
    options = {"window_strides": (1, 1), "dimension_numbers": numbers} | options
    _check(lambda x, kernel: lax.conv_general_dilated(x, kernel, **options), x, kernel)


def test_a_row_that_is_looked_up_twice_adds_before_the_norm(x64: None):
    table = _normal(0, 5, 2)
    index = jnp.array([[1, 1, 4], [0, 7, 2], [3, 3, 3]])  # 7 is outside
    flat, _ = trace(lambda i, t: t.at[i].get(mode="fill", fill_value=0), index[0], table)
    step = next(step for step in flat.steps if step.name == "gather")
    assert has_rule(step, 0)
    g = _normal(1, 3, 3, 2)
    meeting = Meeting(Site(0, step, 0, 0, ()), index[..., None], g)
    expected = np.zeros((3, 5, 2))
    for lane in range(3):
        for at, row in enumerate(index[lane].tolist()):
            if row < 5:
                expected[lane, row] += g[lane, at]
    np.testing.assert_allclose(meeting.gradients(), expected, atol=1e-12)
    np.testing.assert_allclose(meeting.squared_norms(), (expected**2).sum((1, 2)), rtol=1e-12)
    found = meeting.weighted_sum(jnp.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(found, expected[0] + 2 * expected[1], atol=1e-12)


def test_what_no_rule_covers_is_told():
    batched = trace(
        lambda x, k: jnp.einsum("bi,bij->bj", x, k), jnp.ones((2, 3)), jnp.ones((2, 3, 4))
    )[0]
    assert not any(has_rule(step, at) for step in batched.steps for at in range(len(step.inputs)))
    columns = trace(lambda i, t: t[:, i], jnp.array([0, 1]), jnp.ones((3, 4)))[0]
    (gather,) = [step for step in columns.steps if step.name == "gather"]
    assert not has_rule(gather, 0)
