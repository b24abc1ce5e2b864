from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn

KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mean_is_preserved_and_the_rate_is_the_share_of_zeros(rate):
    x = jnp.ones((200, 200))
    y = np.asarray(nn.dropout(rate).apply({}, (), x, key=KEY, train=True)[0])
    deviation = (rate * (1 - rate) / x.size) ** 0.5
    assert abs((y == 0).mean() - rate) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_another_key_is_another_mask_and_the_same_key_the_same(maybe_jit):
    drop = maybe_jit(
        lambda key: nn.dropout(0.5).apply({}, (), jnp.ones(100), key=key, train=True)[0]
    )
    first, second = drop(jax.random.key(0)), drop(jax.random.key(1))
    assert (first != second).any()
    assert (first == drop(jax.random.key(0))).all()


def test_evaluation_is_the_identity_and_needs_no_key(maybe_jit):
    x = jnp.arange(4.0)
    y, _ = maybe_jit(nn.dropout(0.9).apply)({}, (), x)
    assert (y == x).all()


def test_rate_zero_is_the_identity_and_needs_no_key():
    x = jnp.arange(4.0)
    assert nn.dropout(0.0).apply({}, (), x, train=True)[0] is x


def test_a_traced_rate_compiles_once():
    traces = []

    @jax.jit
    def drop(rate, x):
        traces.append(rate)
        return nn.dropout(rate).apply({}, (), x, key=KEY, train=True)[0]

    x = jnp.ones(1000)
    shares = [float((drop(jnp.float32(rate), x) == 0).mean()) for rate in (0.0, 0.2, 0.8)]
    assert len(traces) == 1
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.2, abs=0.06)
    assert shares[2] == pytest.approx(0.8, abs=0.06)


def test_a_traced_rate_drops_what_a_fixed_rate_drops():
    x = jnp.ones(100)
    fixed = nn.dropout(0.3).apply({}, (), x, key=KEY, train=True)[0]
    traced = jax.jit(lambda r: nn.dropout(r).apply({}, (), x, key=KEY, train=True)[0])(
        jnp.float32(0.3)
    )
    np.testing.assert_allclose(traced, fixed, rtol=1e-6)


def test_a_missing_key_names_the_part():
    model = nn.serial(block=nn.serial(drop=nn.dropout(0.5)))
    with pytest.raises(ValueError, match="dropout at 'block/drop' needs a key"):
        model.apply({}, (), jnp.ones(3), train=True)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), 2, jnp.float32(1.5)])
def test_a_rate_that_is_no_probability_below_one_is_refused(rate):
    with pytest.raises(ValueError, match="is not in \\[0, 1\\)"):
        nn.dropout(rate)


def test_the_mask_of_a_part_does_not_change_when_another_part_is_inserted():
    x = jnp.ones((4, 50))
    short = nn.serial(drop=nn.dropout(0.5))
    long = nn.serial(first=nn.identity, noise=nn.dropout(0.0), drop=nn.dropout(0.5))
    one, other = (model.apply({}, (), x, key=KEY, train=True)[0] for model in (short, long))
    assert (one == other).all()


def test_two_parts_draw_different_masks():
    x = jnp.ones((4, 50))
    both = nn.parallel(nn.dropout(0.5), nn.dropout(0.5)).apply({}, (), x, key=KEY, train=True)[0]
    assert (both["0"] != both["1"]).any()
