from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import nn
from functorch_kit.train import masked_autoencoder, patch_mask

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)
X = jnp.asarray(RANDOM.normal(1, 1, (5, 4, 6, 2)), jnp.float32)


@pytest.mark.parametrize(("rate", "hidden"), [(0.5, 3), (0.51, 4), (0.0, 0), (1.0, 6)])
@pytest.mark.parametrize("traced", [False, True])
def test_whole_patches_are_hidden_and_as_many_in_each_example(rate, hidden, traced):
    keys = jax.random.split(KEY, 5)
    run = jax.jit(patch_mask, static_argnums=2) if traced else patch_mask
    mask = np.asarray(run(keys, X, (2, 2), jnp.float32(rate) if traced else rate))
    assert mask.shape == X.shape
    blocks = mask.reshape(5, 2, 2, 3, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(5, 6, 8)
    assert (blocks.all(2) | ~blocks.any(2)).all()
    assert (blocks.all(2).sum(1) == hidden).all()


def test_a_share_that_is_whole_is_not_rounded_up():
    """In float32, 0.6 × 25 is 15.000001."""
    mask = patch_mask(jax.random.split(KEY, 2), jnp.ones((2, 25)), (1,), 0.6)
    assert mask.sum(1).tolist() == [15, 15]


def test_every_patch_is_hidden_as_often_as_every_other():
    mask = patch_mask(jax.random.split(KEY, 4000), jnp.ones((4000, 8)), (1,), 0.25)
    # Binomial: 1000 of 4000, deviation 27.
    assert np.abs(np.asarray(mask).sum(0) - 1000).max() < 5 * 27


def test_only_what_is_hidden_counts_and_it_is_not_seen(x64):
    seen = []

    def apply(params, model_state, x, *, key=None, train=False):
        seen.append(np.asarray(x))
        return params * jnp.ones_like(x), model_state

    x = jnp.asarray(np.asarray(X), jnp.float64)
    objective = masked_autoencoder(nn.Model(lambda key, x: (0.0, ()), apply), patch=(2, 2))
    weight = jnp.array([1.0, 0.0, 2.0, 1.0, 1.0])
    batch = {"x": x, "weight": weight}
    outcome = objective(jnp.float64(0.25), (), batch, key=KEY, train=True)
    hidden = seen[0] == 0
    np.testing.assert_array_equal(seen[0][~hidden], np.asarray(x)[~hidden])
    assert hidden.mean() == pytest.approx(5 / 6)  # 0.75 of 6 patches, rounded up
    each = np.asarray(weight)[:, None, None, None] * hidden
    np.testing.assert_allclose(outcome.loss_sum, (each * (0.25 - np.asarray(x)) ** 2).sum())
    np.testing.assert_allclose(outcome.weight, each.sum())
    absolute = outcome.metrics["absolute_error"]
    np.testing.assert_allclose(absolute.total, (each * np.abs(0.25 - np.asarray(x))).sum())


def test_each_step_hides_something_else_and_each_example_too():
    def hidden(seed):
        objective = masked_autoencoder(
            nn.Model(lambda key, x: ((), ()), lambda p, s, x, *, key=None, train=False: (x, x)),
            patch=(1, 1),
        )
        ones = {"x": jnp.ones((5, 4, 6))}
        return np.asarray(objective((), (), ones, key=jax.random.key(seed), train=True)[2]) == 0

    one, same, other = hidden(0), hidden(0), hidden(1)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any((1, 2)).all()
    assert len(np.unique(one.reshape(5, -1), axis=0)) == 5


def test_an_evaluation_does_not_depend_on_its_batches():
    objective = masked_autoencoder(nn.identity, patch=(2, 2), rate=0.5)
    run = jax.jit(lambda x: objective({}, (), {"x": x}, key=None, train=False))
    whole, parts = run(X), [run(X[np.array([4, 1])]), run(X[np.array([0, 2, 3])])]
    added = jax.tree.map(jnp.add, *parts)
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_is_hidden_may_be_told_apart_from_what_is_black():
    def guess(x):
        return jnp.where(x["mask"], 7.0, x["x"])

    objective = masked_autoencoder(
        nn.lambda_(guess),
        patch=(2, 2),
        error=jnp.abs,
        hide=lambda x, mask: {"x": jnp.where(mask, 0, x), "mask": mask},
    )
    outcome = objective({}, (), {"x": jnp.zeros((2, 4, 4))}, key=KEY, train=True)
    assert float(outcome.loss_sum / outcome.weight) == 7


@pytest.mark.parametrize(
    ("model", "patch", "message"),
    [
        (nn.identity, (3, 2), r"patches \(3, 2\) do not divide \(4, 6, 2\)"),
        (nn.identity, (1, 1, 1, 1), r"patches \(1, 1, 1, 1\) do not divide"),
        (nn.flatten(), (2, 2), r"outputs are \(5, 48\), inputs \(5, 4, 6, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, patch, message):
    with pytest.raises(ValueError, match=message):
        masked_autoencoder(model, patch=patch)({}, (), {"x": X}, key=KEY, train=True)


def test_hidden_halves_of_handwritten_digits_are_guessed(standard_promotion):
    """A squared error of 0.045 for a hidden pixel; that of each pixel's mean is 0.074."""
    digits = fk.data.digits()
    model = nn.serial(
        flat=nn.flatten(),
        hidden=nn.dense(256),
        act=nn.relu,
        out=nn.dense(64),
        image=nn.lambda_(lambda x: x.reshape(-1, 8, 8, 1)),
    )
    objective = masked_autoencoder(model, patch=(2, 2), rate=0.5)
    result = fk.fit(
        model, objective, optimizer=optax.adam(3e-3), data=digits, steps=400, quiet=True
    )
    mean, x = digits.train.arrays["x"].mean(0), digits.test.arrays["x"]
    assert np.mean((x - mean) ** 2) > 0.07
    assert result.test["loss"] < 0.045
