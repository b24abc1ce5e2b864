"""The decoder is the same network on the same params, told new tokens only."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, nn
from functorch_kit.types import path_name

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
TINY = models.GPTConfig(layers=2, heads=4, width=8, context=6, vocabulary=7)
LLAMA = dataclasses.replace(
    TINY, norm="rms", position="rotary", mlp="swiglu", kv_heads=2, hidden=5, is_tied=False, window=3
)
CONFIGS = {
    "GPT-2": TINY,
    "Llama": LLAMA,
    "repeated": dataclasses.replace(LLAMA, is_repeated=True),
    "normed queries": dataclasses.replace(LLAMA, qk_norm=True, mlp="relu_squared", ending="zero"),
}
TOKENS = jnp.array([[0, 3, 1, 4, 2, 6], [5, 5, 0, 1, 3, 2]])


def _filled(config: models.GPTConfig):
    random = np.random.default_rng(1)
    model = models.gpt(config)
    params, _ = jax.eval_shape(lambda: model.init(KEY, TOKENS))
    return model, jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), params)


def _as_float64(cache):
    return jax.tree.map(lambda c: c.astype(float) if c.dtype == jnp.float32 else c, cache)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_prompt_and_then_token_by_token_gives_the_logits_of_the_whole(config, x64):
    model, params = _filled(config)
    expected = jax.jit(lambda p: model.apply(p, (), TOKENS)[0])(params)
    decoder = models.gpt_decoder(config)
    made, cache = jax.jit(lambda: decoder.init(KEY, TOKENS))()
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    run, cache = jax.jit(decoder.apply), _as_float64(cache)
    start = 0
    for length in (3, 1, 1, 1):
        y, cache = run(params, cache, TOKENS[:, start : start + length])
        np.testing.assert_allclose(y, expected[:, start : start + length], rtol=1e-10, atol=1e-10)
        start += length
    assert cache["index"].tolist() == [6, 6]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_prompts_of_different_lengths_go_on_each_from_its_end(config, x64):
    model, params = _filled(config)
    decoder = models.gpt_decoder(config, only_last=True)
    cache = _as_float64(jax.jit(lambda: decoder.init(KEY, TOKENS)[1])())
    run, lengths = jax.jit(decoder.apply), [4, 2]
    # A position sees none after it, so the whole text's logits are those of every beginning.
    expected = jax.jit(lambda p: model.apply(p, (), TOKENS)[0])(params)
    y, cache = run(params, cache, {"tokens": TOKENS[:, :4], "lengths": jnp.array(lengths)})
    for _ in range(2):
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(y[row], expected[row, length - 1], rtol=1e-10, atol=1e-10)
        new = jnp.stack([TOKENS[row, length] for row, length in enumerate(lengths)])
        y, cache = run(params, cache, new[:, None])
        lengths = [length + 1 for length in lengths]


def test_a_token_beyond_the_cache_gives_nan(x64):
    _, params = _filled(LLAMA)
    decoder = models.gpt_decoder(LLAMA, cache=4)
    cache = _as_float64(jax.jit(lambda: decoder.init(KEY, TOKENS)[1])())
    y, _ = jax.jit(decoder.apply)(params, cache, TOKENS)
    assert np.isfinite(y[:, :4]).all()
    assert np.isnan(y[:, 4:]).all()


def test_llamas_parameters_bear_its_names():
    _, params = _filled(dataclasses.replace(LLAMA, layers=1))
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    attention = [f"blocks/0/attention/{name}/kernel" for name in ("key", "out", "query", "value")]
    mlp = [f"blocks/0/mlp/{name}/kernel" for name in ("down", "gate", "up")]
    assert paths == [
        *attention, "blocks/0/attention_norm/scale", *mlp, "blocks/0/mlp_norm/scale",
        "head/kernel", "norm/scale", "token/embedding",
    ]  # fmt: skip


def test_a_repeated_gpt_is_the_stacked_one(x64):
    model, params = _filled(LLAMA)
    repeated = models.gpt(dataclasses.replace(LLAMA, is_repeated=True))
    at_once = params | {"blocks": nn.stacked(params["blocks"])}
    y, expected = jax.jit(
        lambda: (repeated.apply(at_once, (), TOKENS)[0], model.apply(params, (), TOKENS)[0])
    )()
    np.testing.assert_allclose(y, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.gpt_decoder(TINY, cache=7), "longer than the table of 6"),
        (lambda: models.gpt(dataclasses.replace(TINY, norm="rsm")), "norm 'rsm' is not 'layer'"),
        (lambda: models.gpt(dataclasses.replace(TINY, mlp="relu")), "mlp 'relu' is not 'gelu'"),
        (lambda: models.gpt(dataclasses.replace(TINY, position="no")), "position 'no' is not"),
        (lambda: models.gpt(dataclasses.replace(TINY, ending="one")), "ending 'one' is not"),
        (
            lambda: models.gpt(TINY).apply({}, (), {"tokens": TOKENS, "segment": TOKENS}),
            "a dict of tokens, segment: give tokens",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()
