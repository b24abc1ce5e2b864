from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.train import regression

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(size=(7, 3)), jnp.float32)
NUMBERS = {"x": LOGITS, "y": jnp.asarray(RANDOM.normal(size=(7, 3)), jnp.float32)}


def test_regression_is_the_sum_of_squares_and_of_absolute_differences():
    outcome = regression(nn.identity)({}, (), NUMBERS, key=None, train=False)
    apart = np.asarray(LOGITS, np.float64) - np.asarray(NUMBERS["y"])
    np.testing.assert_allclose(outcome.loss_sum, (apart**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(
        outcome.metrics["absolute_error"].compute(), np.abs(apart).sum() / 7, rtol=1e-6
    )


def test_predictions_of_another_shape_are_refused_not_broadcast():
    batch = {"x": jnp.zeros((4, 1)), "y": jnp.zeros((4, 3))}
    with pytest.raises(ValueError, match=r"predictions are \(4, 1\), targets \(4, 3\)"):
        regression(nn.identity)({}, (), batch, key=None, train=True)
