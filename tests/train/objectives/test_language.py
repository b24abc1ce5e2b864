from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.train import language_model

RANDOM = np.random.default_rng(0)
TABLE = nn.embedding(5, 5)  # the logits of the next token, by token
TOKENS = jnp.array([[0, 1, 2, 3], [4, 4, 0, 1]])
NEXT = jnp.array([[1, 2, 3, 0], [4, 0, 1, 2]])
PARAMS = {"embedding": jnp.asarray(RANDOM.normal(size=(5, 5)), jnp.float32)}


def test_a_language_models_loss_is_in_nats_for_each_token(maybe_jit):
    run = maybe_jit(lambda b: language_model(TABLE)(PARAMS, (), b, key=None, train=False))
    weight = jnp.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    outcome = run({"x": TOKENS, "y": NEXT, "weight": weight})
    logits = np.asarray(PARAMS["embedding"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    counted = [(0, 1), (1, 2), (3, 0), (4, 4)]
    np.testing.assert_allclose(outcome.loss_sum, -sum(log_p[p] for p in counted), rtol=1e-6)
    assert float(outcome.weight) == 4
    right = sum(logits[token].argmax() == following for token, following in counted)
    assert float(outcome.metrics["accuracy"].total) == right
    assert list(outcome.metrics) == ["accuracy"]


def test_a_language_models_sequence_in_two_parts_adds_up(maybe_jit):
    run = maybe_jit(lambda b: language_model(TABLE)(PARAMS, (), b, key=None, train=True))
    whole = run({"x": TOKENS, "y": NEXT})
    parts = [run({"x": TOKENS[:, cut], "y": NEXT[:, cut]}) for cut in (slice(3), slice(3, 4))]
    added = jax.tree.map(jnp.add, *parts)
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert float(whole.weight) == 8


def test_logits_that_are_not_one_row_for_each_token_are_refused():
    pooled = nn.serial(table=TABLE, mean=nn.lambda_(lambda x: x.mean(1)))
    batch = {"x": TOKENS, "y": NEXT}
    with pytest.raises(ValueError, match=r"logits are \(2, 5\), tokens \(2, 4\)"):
        language_model(pooled)({"table": PARAMS}, (), batch, key=None, train=True)
