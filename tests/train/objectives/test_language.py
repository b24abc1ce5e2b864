from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import models, nn
from functorch_kit.train import language_model

pytestmark = pytest.mark.usefixtures("compiled_quickly")

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


PACKED = nn.serial(pick=nn.lambda_(lambda x: x["tokens"]), table=TABLE)
SEGMENTS = jnp.array([[1, 1, 2, 2], [1, 2, 0, 0]])


@pytest.mark.parametrize("weight", [None, [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]])
def test_the_last_token_of_a_document_has_no_target_and_padding_neither(weight, maybe_jit):
    batch = {"x": {"tokens": TOKENS, "segments": SEGMENTS}, "y": NEXT}
    if weight is not None:
        batch["weight"] = jnp.asarray(weight)
    run = maybe_jit(
        lambda b: language_model(PACKED)({"table": PARAMS}, (), b, key=None, train=True)
    )
    outcome = run(batch)
    logits = np.asarray(PARAMS["embedding"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    # Within segments: 0 -> 1 and 2 -> 3; 3 -> 0 goes on beyond the row, which its weight decides.
    counted = [(0, 1), (2, 3)] + ([] if weight else [(3, 0)])
    np.testing.assert_allclose(outcome.loss_sum, -sum(log_p[p] for p in counted), rtol=1e-6)
    assert float(outcome.weight) == len(counted)
    assert float(outcome.metrics["accuracy"].weight) == len(counted)


def test_packing_leaves_the_loss_of_documents_what_it_is(x64):
    """The sum over documents alone is that over windows of them; so is the gradient."""
    random = np.random.default_rng(1)
    model = models.gpt(models.GPTConfig(layers=1, heads=1, width=4, context=6, vocabulary=5))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), TOKENS)[0])
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), shapes)
    lengths = [4, 2, 4, 2, 1]  # two lengths to compile, and one with nothing to predict
    documents = [random.integers(0, 5, n).astype(np.int32) for n in lengths]
    order = fk.data.Sequential(3, 3)
    packed = fk.data.Packed(np.concatenate(documents), fk.data.pack(lengths, 6), 6, order)

    def loss(params, batch):
        outcome = language_model(model)(params, (), batch, key=None, train=True)
        return outcome.loss_sum, outcome.weight

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, weight), slope = run(params, packed(0))
    alone = [
        run(params, {"x": jnp.asarray(d)[None, :-1], "y": jnp.asarray(d)[None, 1:]})
        for d in documents
        if len(d) > 1
    ]
    assert float(weight) == sum(n - 1 for n in lengths)
    np.testing.assert_allclose(total, sum(value for (value, _), _ in alone), rtol=1e-12)
    added = jax.tree.map(lambda *leaves: sum(leaves), *(gradient for _, gradient in alone))
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(added), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_accumulation_over_packed_windows_is_exact(standard_promotion, x64):
    """Windows hold different numbers of targets: means over micro-batches would not add up."""
    random = np.random.default_rng(1)
    lengths = [6, 1, 1, 1, 2, 1, 5, 6]
    tokens = jnp.asarray(random.integers(0, 5, sum(lengths)), jnp.int32)
    index = fk.data.pack(lengths, 6)
    packed = fk.data.Packed(np.asarray(tokens), index, 6, fk.data.Sequential(4, 4))
    batch, sgd = packed(0), optax.sgd(1.0)
    assert len(index.start) == 4
    assert len(set(batch["weight"].sum(1))) > 1
    state = fk.train.init_state(PACKED, sgd, packed.spec["x"])
    state = state.replace(params=jax.tree.map(lambda p: p.astype(jnp.float64), state.params))
    one, other = (
        jax.jit(fk.train.make_train_step(language_model(PACKED), sgd, options))({}, state, batch)
        for options in (fk.train.Options(), fk.train.Options(accumulate=2))
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_packed_paragraphs_of_prose_are_learnt(standard_promotion):
    """From 3.2 nats, which letters alone leave, to below 2.65 in 120 steps; untrained it is 4.7."""
    from pydoc_data.topics import topics

    paragraphs = [part for name in sorted(topics) for part in topics[name].split("\n\n")]
    prose = fk.data.documents(paragraphs[::2], batch_size=16, context=64, validation=0.05)
    config = models.GPTConfig(
        layers=1, heads=2, width=32, context=64, vocabulary=len(prose.vocabulary)
    )
    model = models.gpt(config)
    result = fk.fit(
        model,
        language_model(model),
        optimizer=optax.adam(5e-3),
        data=prose,
        steps=120,
        eval_every=120,
        quiet=True,
    )
    counts = np.bincount(prose.train.tokens)
    share = counts[counts > 0] / counts.sum()
    assert -(share * np.log(share)).sum() > 3.1
    assert result.summary["validation_loss"] < 2.65
