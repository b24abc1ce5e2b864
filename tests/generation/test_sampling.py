from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.generation import GenerationError, Sampling, draw, filtered, keys_of

SHARES = np.array([0.02, 0.4, 0.08, 0.3, 0.2])
# Which tokens stay, and with which probability, worked out by hand from SHARES.
LAWS = {
    "as they are": ({}, SHARES),
    "cold": ({"temperature": 0.5}, SHARES**2 / 0.2968),
    "hot": ({"temperature": 2.0}, np.sqrt(SHARES) / np.sqrt(SHARES).sum()),
    "top 1": ({"top_k": 1}, [0, 1, 0, 0, 0]),
    "top 3": ({"top_k": 3}, [0, 4 / 9, 0, 3 / 9, 2 / 9]),
    "top 9": ({"top_k": 9}, SHARES),
    "p 0.39": ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
    "p 0.41": ({"top_p": 0.41}, [0, 4 / 7, 0, 3 / 7, 0]),
    "p 0.95": ({"top_p": 0.95}, [0, 40 / 98, 8 / 98, 30 / 98, 20 / 98]),
    "p 1": ({"top_p": 1.0}, SHARES),
    # Of the three that stay, 4/9 + 3/9 is below 0.8.
    "top 3 and p 0.8": ({"top_k": 3, "top_p": 0.8}, [0, 4 / 9, 0, 3 / 9, 2 / 9]),
    # Squared and with top 3: 0.16, 0.09 and 0.04 of 0.29; 0.16 + 0.09 is more than 0.8 of it.
    "cold, top 3 and p 0.8": (
        {"temperature": 0.5, "top_k": 3, "top_p": 0.8},
        [0, 16 / 25, 0, 9 / 25, 0],
    ),
}
# The 99.9 % quantile of chi-square by degrees of freedom.
CHI_SQUARE = {0: 0.0, 1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47}


@pytest.mark.parametrize(("settings", "expected"), LAWS.values(), ids=LAWS)
def test_what_stays_has_its_probability(settings, expected, maybe_jit, x64):
    logits = jnp.asarray(np.log(SHARES) + 3.0)
    left = maybe_jit(filtered, static_argnames="top_k")(logits, **settings)
    np.testing.assert_allclose(jax.nn.softmax(left), expected, atol=1e-12)


@pytest.mark.parametrize(("settings", "expected"), LAWS.values(), ids=LAWS)
def test_draws_follow_the_law(settings, expected):
    count = 20_000
    keys = keys_of(jax.random.key(5), jnp.arange(count), jnp.full(count, 3))
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(SHARES, jnp.float32)), (count, 5))
    seen = np.bincount(draw(keys, logits, **settings), minlength=5)
    wanted = count * np.asarray(expected)
    assert (seen[wanted == 0] == 0).all()
    there = wanted > 0
    statistic = ((seen - wanted)[there] ** 2 / wanted[there]).sum()
    assert statistic <= CHI_SQUARE[there.sum() - 1]


def test_top_p_leaves_the_fewest_tokens_that_have_it(x64):
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 17)) * 3
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        stays = np.isfinite(np.asarray(filtered(jnp.asarray(logits), top_p=top_p)))
        mass = np.where(stays, share, 0).sum(-1)
        least = np.where(stays, share, 2).min(-1)
        assert (mass >= top_p - 1e-12).all()
        assert (mass - least < top_p).all()  # without the last one it would be too little
        assert (np.where(stays, 0, share).max(-1) < least).all()


def test_what_is_as_likely_as_the_last_that_stays_stays_too():
    logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2]))
    assert np.isfinite(filtered(logits, top_k=2)).tolist() == [True] * 4
    assert np.isfinite(filtered(logits, top_p=0.5)).tolist() == [True] * 4


def test_temperature_0_takes_the_likeliest_token_whatever_the_key(maybe_jit):
    logits = jax.random.normal(jax.random.key(0), (50, 9))
    keys = keys_of(jax.random.key(1), jnp.arange(50), jnp.arange(50))
    found = maybe_jit(draw)(keys, logits, temperature=jnp.float32(0))
    assert found.tolist() == np.argmax(logits, -1).tolist()
    assert found.dtype == jnp.int32


def test_each_sample_and_place_has_a_key_of_its_own():
    number, place = (grid.reshape(-1) for grid in jnp.meshgrid(jnp.arange(30), jnp.arange(30)))
    keys = jax.random.key_data(keys_of(jax.random.key(0), number, place))
    assert len(np.unique(np.asarray(keys), axis=0)) == 900


def test_logits_that_are_no_numbers_draw_nothing():
    logits = jnp.array([[0.0, jnp.nan], [0.0, 1.0], [-jnp.inf, 0.0]])
    keys = keys_of(jax.random.key(0), jnp.arange(3), jnp.arange(3))
    assert draw(keys, logits, temperature=1.0).tolist()[::2] == [-1, 1]
    assert draw(keys, logits, temperature=0.0).tolist() == [-1, 1, 1]


def test_half_precision_is_filtered_in_32_bits():
    logits = jnp.array([1.0, 2.0], jnp.bfloat16)
    assert filtered(logits, top_p=0.9).dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0\.1: give a number from 0 up"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0: give a whole number from 1 up"),
        ({"top_p": 0.0}, r"top_p is 0\.0: give a share above 0 and up to 1"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(settings, message):
    with pytest.raises(GenerationError, match=message) as caught:
        Sampling(**settings)
    assert "\n" not in str(caught.value)
