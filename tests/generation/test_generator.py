"""A generator says what the whole model would say, token by token, whoever stands beside it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models
from functorch_kit.generation import GenerationError, Generator, Sampling, generate
from functorch_kit.program.cache import watch_compilations

LEARNED = models.GPTConfig(layers=2, heads=2, width=8, context=8, vocabulary=11)
ROTARY = dataclasses.replace(
    LEARNED, norm="rms", position="rotary", mlp="relu_squared", qk_norm=True, kv_heads=1,
    is_tied=False,
)  # fmt: skip
SHALLOW = dataclasses.replace(ROTARY, layers=1)
CONFIGS = {
    "learned positions": LEARNED,
    "rotary positions": ROTARY,
    "repeated": dataclasses.replace(ROTARY, is_repeated=True),
}
GREEDY = Sampling(temperature=0)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 10, 3]]


def _params(config: models.GPTConfig, dtype: type = np.float64):
    random = np.random.default_rng(2)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    params, _ = jax.eval_shape(lambda: models.gpt(config).init(jax.random.key(0), tokens))
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), dtype), params)


@pytest.fixture(scope="module")
def small() -> Generator:
    return Generator(LEARNED, _params(LEARNED, np.float32), chunk=5)


def _tokens(rows) -> list[list[int]]:
    return [row.tokens.tolist() for row in rows]


def _whole(config: models.GPTConfig, params, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens by the model that reads the whole window for each of them.

    Once the window is full, its last half and the newest token are what is read.
    """
    apply = jax.jit(lambda tokens: models.gpt(config).apply(params, (), tokens)[0])
    window, made = prompt[-config.context :], []
    for _ in range(count):
        padded = jnp.asarray([window + [0] * (config.context - len(window))])
        made.append(int(np.argmax(apply(padded)[0, len(window) - 1])))
        window = [*window, made[-1]]
        if len(window) > config.context:
            window = window[-(config.context // 2 + 1) :]
    return made


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_likeliest_tokens_are_those_of_the_model_without_a_cache(config, x64):
    params = _params(config)
    rows = generate(config, params, PROMPTS, tokens=25, sampling=GREEDY)
    assert [row.reason for row in rows] == ["length"] * 3
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens.tolist() == _whole(config, params, prompt, 25)
    assert len({token for row in _tokens(rows) for token in row}) > 2  # or it would prove little


def test_another_chunk_brings_the_same_tokens(x64):
    params, settings = _params(SHALLOW), Sampling(top_k=6, top_p=0.9)
    found = [
        _tokens(Generator(SHALLOW, params, chunk=chunk)(PROMPTS, tokens=13, sampling=settings))
        for chunk in (1, 3, 32)
    ]
    assert found[0] == found[1] == found[2]


def test_a_row_is_the_same_whatever_stands_beside_it(x64):
    generator = Generator(SHALLOW, _params(SHALLOW))
    together = _tokens(generator(PROMPTS, tokens=20, seed=7))
    for number, prompt in enumerate(PROMPTS):
        assert _tokens(generator([prompt], tokens=20, seed=7, first=number)) == [together[number]]
    beside = [PROMPTS[0], [1, 2, 3], [0], [10] * 8]
    assert _tokens(generator(beside, tokens=20, seed=7))[0] == together[0]


def test_a_text_goes_on_the_same_when_its_beginning_is_the_prompt(x64):
    generator = Generator(SHALLOW, _params(SHALLOW))
    (whole,) = _tokens(generator([[3, 1]], tokens=6, seed=3))
    (rest,) = _tokens(generator([[3, 1, *whole[:4]]], tokens=2, seed=3))
    assert rest == whole[4:]


def test_samples_differ_and_another_seed_brings_others(small: Generator):
    same = _tokens(small([[1, 2]] * 4, tokens=12, seed=1))
    assert _tokens(small([[1, 2]] * 4, tokens=12, seed=1)) == same
    assert len({tuple(row) for row in same}) == 4
    other = _tokens(small([[1, 2]] * 4, tokens=12, seed=2))
    assert all(a != b for a, b in zip(same, other, strict=True))
    assert _tokens(small([[1, 2]] * 4, tokens=12, seed=1, first=2))[:2] == same[2:]


def test_the_first_token_follows_the_law_of_the_model(x64):
    config = dataclasses.replace(LEARNED, vocabulary=5)
    params = jax.tree.map(lambda p: p / 2, _params(config))
    logits = models.gpt(config).apply(params, (), jnp.array([[3, 1]]))[0][0, -1]
    expected = 4000 * np.asarray(jax.nn.softmax(logits))
    rows = generate(config, params, [[3, 1]] * 4000, tokens=1, seed=11)
    seen = np.bincount([row.tokens[0] for row in rows], minlength=5)
    # The 99.9 % quantile of chi-square with four degrees of freedom.
    assert ((seen - expected) ** 2 / expected).sum() < 18.47


def test_the_end_token_ends_its_row_alone_and_is_left_out(small: Generator):
    prompts = [[1, 2]] * 4
    free = _tokens(small(prompts, tokens=12, seed=1))
    end = free[0][5]
    rows = small(prompts, tokens=12, seed=1, end=end)
    for row, whole in zip(rows, free, strict=True):
        is_ended = end in whole
        assert row.reason == ("end" if is_ended else "length")
        assert row.tokens.tolist() == (whole[: whole.index(end)] if is_ended else whole)


def test_generation_stops_when_all_rows_have_ended(small: Generator):
    (free,) = _tokens(small([[4]], tokens=12, seed=1))
    pieces = list(small.stream([[4]], tokens=1000, seed=1, end=free[2]))
    assert len(pieces) < 4
    assert pieces[-1].reasons == ["end"]


@pytest.mark.parametrize("length", [1, 5, 8])
def test_a_context_that_is_full_ends_the_row_if_that_is_asked(small: Generator, length: int):
    rows = small([[1] * length, [2]], tokens=100, overflow="stop")
    # The model reads 8 tokens at most, and the one after them is the last that it can say.
    assert [len(row.tokens) for row in rows] == [9 - length, 8]
    assert [row.reason for row in rows] == ["context"] * 2


def test_pieces_come_as_they_are_made_and_add_up(small: Generator):
    pieces = list(small.stream([[1, 2], [3]], tokens=12, seed=4))
    assert all(len(piece.tokens[0]) <= 5 for piece in pieces)
    assert [piece.reasons for piece in pieces[:-1]] == [[None, None]] * (len(pieces) - 1)
    whole = _tokens(small([[1, 2], [3]], tokens=12, seed=4))
    for number in range(2):
        joined = np.concatenate([piece.tokens[number] for piece in pieces])
        assert joined.tolist() == whole[number]


def test_other_numbers_compile_nothing_again():
    generator = Generator(LEARNED, _params(LEARNED, np.float32))
    generator([[1, 2]], tokens=12, sampling=Sampling(0.5, top_p=0.5))
    with watch_compilations() as seen:
        generator([[3, 4, 5]], tokens=9, sampling=Sampling(1.5, top_p=0.9), seed=8, end=3)
    assert seen.seconds == 0


def test_parameters_that_are_nan_are_named_and_nothing_is_generated():
    params = _params(LEARNED, np.float32)
    params["norm"]["scale"] = params["norm"]["scale"].at[0].set(jnp.nan)
    with pytest.raises(GenerationError, match="logits of row 0 are NaN") as caught:
        generate(LEARNED, params, [[1]], tokens=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "there are no prompts: give one at least"),
        ([[1], []], {}, "prompt 1 is empty: give a token at least"),
        ([[1, 11]], {}, "prompt 0 has token 11: the model knows 0 to 10"),
        ([[-1]], {}, "prompt 0 has token -1"),
        ([[1]], {"tokens": 0}, "tokens is 0"),
        ([[1]], {"end": 11}, "end is 11: the model knows tokens 0 to 10"),
        ([[1]], {"overflow": "wrap"}, "overflow is 'wrap': give 'slide' or 'stop'"),
        ([[1] * 9], {"overflow": "stop"}, "prompt 0 has 9 tokens, and the model reads 8"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_line(
    small: Generator, prompts, options, message
):
    with pytest.raises(GenerationError, match=message) as caught:
        small(prompts, **{"tokens": 2, **options})
    assert "\n" not in str(caught.value)


def test_a_context_of_one_cannot_slide():
    config = dataclasses.replace(LEARNED, context=1)
    generator = Generator(config, _params(config, np.float32))
    with pytest.raises(GenerationError, match="give overflow='stop'"):
        generator([[1]], tokens=2)
    assert [row.reason for row in generator([[1]], tokens=2, overflow="stop")] == ["context"]


def test_a_chunk_of_no_tokens_is_refused():
    with pytest.raises(GenerationError, match="chunk is 0"):
        Generator(LEARNED, {}, chunk=0)
