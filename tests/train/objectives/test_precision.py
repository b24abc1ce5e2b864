"""Whatever a model computes in, what an objective adds up has at least 32 bits."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import models, nn, train

KEY = jax.random.key(0)
ENCODER, DECODER, JUDGE = nn.dense(4), nn.dense(6), nn.dense(1)


def _noisy(key, x):
    return x + jax.random.normal(key, x.shape, x.dtype)


DENSE, WIDE = nn.dense(6), {"dense": nn.dense(6)}
TASKS: dict[str, tuple[nn.Model, Callable, Callable]] = {
    "classification": (DENSE, train.classification(DENSE), lambda x: jnp.arange(len(x))),
    "regression": (DENSE, train.regression(DENSE), lambda x: x),
    "multilabel": (DENSE, train.multilabel(DENSE), lambda x: x > 0.5),
    "masked": (DENSE, train.masked_autoencoder(DENSE, patch=(2,)), lambda x: x),
    "contrastive": (DENSE, train.contrastive(DENSE, augment=_noisy), lambda x: x),
    "variational": (
        models.vae(ENCODER, DECODER),
        train.variational(ENCODER, DECODER),
        lambda x: x,
    ),
    "adversarial": (
        models.gan(DECODER, JUDGE, latent=2),
        train.adversarial(DECODER, JUDGE, latent=2),
        lambda x: x,
    ),
    "weighted": (
        DENSE,
        train.weighted(one=(0.5, train.regression(DENSE)), other=(2.0, train.regression(DENSE))),
        lambda x: x,
    ),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("task", TASKS)
def test_sums_and_their_gradients_have_their_width(task, dtype):
    model, objective, targets = TASKS[task]
    with jax.enable_x64(dtype == "float64"):
        x = jnp.linspace(0, 1, 30).reshape(5, 6).astype(dtype)
        batch = {"x": x, "y": targets(x), "weight": jnp.ones(5)}

        def step(params, train):
            key = KEY if train else None
            outcome = objective(params, (), batch, key=key, train=train)
            return outcome.loss_sum, (outcome.weight, outcome.metrics)

        params = jax.eval_shape(lambda: model.init(KEY, x)[0])
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
        expected = jnp.dtype("float64" if dtype == "float64" else "float32")
        for training in (True, False):
            run = jax.value_and_grad(lambda p, t=training: step(p, t), has_aux=True)
            sums, gradients = jax.eval_shape(run, params)
            assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {expected}
            assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_language_models_too(dtype):
    with jax.enable_x64(dtype == "float64"):
        table = nn.embedding(5, 5, dtype=jnp.dtype(dtype))
        tokens = jnp.zeros((2, 3), jnp.int32)
        params = jax.eval_shape(lambda: table.init(KEY, tokens)[0])
        batch = {"x": tokens, "y": tokens, "weight": jnp.ones((2, 3))}
        outcome = jax.eval_shape(
            lambda p: train.language_model(table)(p, (), batch, key=None, train=True), params
        )
        expected = jnp.dtype("float64" if dtype == "float64" else "float32")
        assert {leaf.dtype for leaf in jax.tree.leaves(outcome)} == {expected}
