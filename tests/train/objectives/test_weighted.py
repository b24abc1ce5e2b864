from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import losses, nn
from functorch_kit.train import classification, contrastive, regression, weighted

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
BATCH = {
    "x": jnp.asarray(RANDOM.normal(size=(5, 3)), jnp.float32),
    "y": jnp.asarray(RANDOM.normal(size=(5, 3)), jnp.float32),
}
SQUARED = regression(nn.identity)
ABSOLUTE = regression(nn.identity, loss=losses.absolute_error)


def test_factors_may_be_traced_and_compile_once():
    traces = []

    @jax.jit
    def run(factor):
        traces.append(factor)
        objective = weighted(squared=(1.0, SQUARED), absolute=(factor, ABSOLUTE))
        return objective({}, (), BATCH, key=None, train=True)

    one, other = (p({}, (), BATCH, key=None, train=True) for p in (SQUARED, ABSOLUTE))
    for factor in (0.0, 2.5):
        outcome = run(jnp.float32(factor))
        expected = one.loss_sum + factor * other.loss_sum
        np.testing.assert_allclose(outcome.loss_sum, expected, rtol=1e-6)
        assert float(outcome.weight) == 5
        np.testing.assert_allclose(
            outcome.metrics["absolute_loss"].compute(), other.loss_sum / 5, rtol=1e-6
        )
    assert len(traces) == 1
    assert sorted(outcome.metrics) == [
        "absolute_absolute_error",
        "absolute_loss",
        "squared_absolute_error",
        "squared_loss",
    ]


def test_two_parts_of_a_batch_add_up_where_parts_count_different_things():
    labelled = {**BATCH, "y": jnp.zeros((5,), jnp.int32), "weight": jnp.array([1.0, 0, 1, 2, 1])}

    def tokens(params, model_state, batch, *, key, train):
        outcome = classification(nn.identity)({}, (), batch, key=key, train=train)
        return outcome._replace(loss_sum=7 * outcome.loss_sum, weight=7 * outcome.weight)

    objective = weighted(a=(1.0, classification(nn.identity)), b=(0.5, tokens))

    run_ = jax.jit(lambda batch: objective({}, (), batch, key=None, train=False))

    def run(part):
        return run_({name: leaf[part] for name, leaf in labelled.items()})

    whole = run(slice(None))
    added = jax.tree.map(jnp.add, run(slice(0, 2)), run(slice(2, 5)))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_part_draws_the_same_whatever_stands_beside_it():
    def noisy(key, x):
        return x + jax.random.normal(key, x.shape)

    views = contrastive(nn.identity, augment=noisy)
    key = jax.random.key(0)
    alone = weighted(views=(1.0, views))({}, (), BATCH, key=key, train=True)
    beside = weighted(squared=(1.0, SQUARED), views=(1.0, views))(
        {}, (), BATCH, key=key, train=True
    )
    assert float(alone.loss_sum) == float(beside.metrics["views_loss"].total)


def test_parts_pass_the_state_on():
    def counting(params, model_state, batch, *, key, train):
        outcome = SQUARED(params, (), batch, key=key, train=train)
        return outcome._replace(model_state=model_state + 1)

    objective = weighted(a=(1.0, counting), b=(1.0, counting))
    assert int(objective({}, jnp.int32(5), BATCH, key=None, train=True).model_state) == 7


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="give at least one part"):
        weighted()
