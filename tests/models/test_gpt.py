from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, program
from functorch_kit.types import path_name

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
TINY = models.GPTConfig(layers=2, heads=2, width=4, context=6, vocabulary=5)
GPT2 = models.GPTConfig(
    layers=12, heads=12, width=768, context=1024, vocabulary=50257, use_bias=True, exact_gelu=False
)


def _specs(config: models.GPTConfig, batch: int = 1, length: int | None = None):
    model = models.gpt(config)
    tokens = jax.ShapeDtypeStruct((batch, length or config.context), jnp.int32)
    params, state = jax.eval_shape(lambda: model.init(KEY, tokens))
    assert state == ()
    return model, params, tokens


def _count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _filled(config: models.GPTConfig, dtype: type = np.float64):
    random = np.random.default_rng(1)
    model, params, _ = _specs(config)
    return model, jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape), dtype), params)


def test_the_cpu_recipe_has_the_parameters_that_nanogpt_counts():
    # nanoGPT, bias=False. A block: two norms of 128, attention 128 × 3·128 and 128 × 128, MLP
    # 128 × 4·128 and back; then the last norm, 65 tokens and 64 positions of 128.
    block = 2 * 128 + 128 * 384 + 128 * 128 + 2 * 128 * 512
    whole = 4 * block + 128 + 65 * 128 + 64 * 128
    assert whole == 804_096
    _, params, _ = _specs(models.GPTConfig())
    assert _count(params) == whole
    # Its log says "number of parameters: 0.80M", without the positions.
    assert f"{(whole - 64 * 128) / 1e6:.2f}M" == "0.80M"


def test_gpt_2_with_a_head_of_its_own_has_that_many_parameters_more():
    _, untied, _ = _specs(dataclasses.replace(GPT2, is_tied=False))
    assert _count(untied) == 124_439_808 + 50257 * 768


def _products(config: models.GPTConfig, tokens: int, length: int) -> int:
    """Twice the multiply-adds: 12 D² a block, the scores and what they read, the head."""
    block = 12 * config.width**2 + 2 * length * config.width
    return 2 * tokens * (config.layers * block + config.width * config.vocabulary)


def test_the_flops_of_gpt_2_are_those_of_its_matrix_products():
    model, params, tokens = _specs(GPT2)
    counted = program.flops(lambda p, x: model.apply(p, (), x)[0], params, tokens)
    products = _products(GPT2, 1024, 1024)
    assert products == 291_648_307_200
    assert products <= counted <= 1.01 * products


def test_the_flops_of_the_small_gpt_are_products_and_elementwise_work():
    """At width 128 what is not a product is 2.4 % of it, so it is in the closed form here."""
    config = models.GPTConfig()
    model, params, tokens = _specs(config, batch=12)
    counted = program.flops(lambda p, x: model.apply(p, (), x)[0], params, tokens)
    # A position and layer: 4 heads × 64 scores × softmax (max, subtract, exp, sum, divide), two
    # norms of 128 × (mean, subtract, square, mean, scale, affine), 512 × exact GELU (about 5), the
    # scaled query and two sums.
    elementwise = 4 * 64 * 5 + 2 * 128 * 6 + 512 * 5 + 3 * 128
    closed = _products(config, 12 * 64, 64) + 12 * 64 * 4 * elementwise
    assert counted == pytest.approx(closed, rel=0.01)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_parameters_path_is_its_address(is_tied):
    _, params, _ = _specs(dataclasses.replace(TINY, use_bias=True, is_tied=is_tied))
    paths = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    dense = [f"attention/{name}" for name in ("query", "key", "value", "out")]
    dense += ["mlp/up", "mlp/down"]
    block = {f"{name}/{leaf}" for name in dense for leaf in ("kernel", "bias")}
    block |= {f"{name}_norm/{leaf}" for name in ("attention", "mlp") for leaf in ("scale", "bias")}
    expected = {f"blocks/{index}/{name}" for index in range(2) for name in block}
    expected |= {"token/embedding", "position/embedding", "norm/scale", "norm/bias"}
    assert paths == expected | (set() if is_tied else {"head/kernel"})


def test_a_token_is_predicted_from_those_up_to_it_only(x64):
    model, params = _filled(TINY)
    tokens = jnp.array([[0, 3, 1, 4, 2, 2]])

    def by_row(rows):
        """Logits, with the table of positions as what the gradient is taken of."""
        return model.apply({**params, "position": {"embedding": rows}}, (), tokens)[0][0]

    slope = jax.jit(jax.jacrev(by_row))(params["position"]["embedding"])
    np.testing.assert_array_equal(np.abs(slope).sum((1, 3)) > 0, np.tri(6, dtype=bool))


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_gradient_is_the_finite_difference(is_tied, x64):
    model, params = _filled(dataclasses.replace(TINY, is_tied=is_tied, use_bias=True))
    tokens = jnp.array([[0, 3, 1, 4, 2], [1, 0, 0, 4, 3]])
    random = np.random.default_rng(2)

    def value(params):
        return jnp.sum(jnp.sin(model.apply(params, (), tokens)[0]))

    run = jax.jit(jax.value_and_grad(value))  # one program for values and slopes
    _, slopes = run(params)
    for _ in range(4):
        direction = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), params)
        ahead, behind = (
            run(jax.tree.map(lambda p, d, s=sign: p + s * 1e-6 * d, params, direction))[0]
            for sign in (1, -1)
        )
        got = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, direction)))
        np.testing.assert_allclose(got, (ahead - behind) / 2e-6, rtol=1e-6)


def test_tied_logits_are_products_with_the_token_embedding(maybe_jit, x64):
    model, params = _filled(TINY)
    untied, _ = _filled(dataclasses.replace(TINY, is_tied=False))
    tokens = jnp.array([[0, 3, 1]])
    head = {"head": {"kernel": params["token"]["embedding"].T}}
    y, _ = maybe_jit(model.apply)(params, (), tokens)
    z, _ = maybe_jit(untied.apply)({**params, **head}, (), tokens)
    np.testing.assert_allclose(y, z, rtol=1e-12)


def test_it_is_drawn_as_nanogpt_draws_it():
    config = models.GPTConfig(layers=2, width=64, use_bias=True)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    params, _ = jax.jit(lambda: models.gpt(config).init(KEY, tokens))()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = path_name(path)
        if name.endswith("bias"):
            assert not leaf.any()
        elif name.endswith("scale"):
            assert (leaf == 1).all()
        else:
            ends = name.endswith(("out/kernel", "down/kernel"))
            expected = 0.02 / 2 if ends else 0.02  # √(2 · layers)
            assert float(jnp.std(leaf)) == pytest.approx(expected, rel=0.06)


def test_the_first_loss_is_that_of_a_guess():
    model, _, _ = _specs(models.GPTConfig(layers=2))
    tokens = jnp.arange(128, dtype=jnp.int32).reshape(2, 64) % 65

    @jax.jit
    def loss():
        params, state = model.init(KEY, tokens)
        logits = jax.nn.log_softmax(model.apply(params, state, tokens)[0])
        return -jnp.mean(logits[..., 0])

    assert float(loss()) == pytest.approx(np.log(65), abs=0.1)


def test_dropout_works_in_training_only():
    model, params = _filled(dataclasses.replace(TINY, dropout=0.5), np.float32)
    tokens = jnp.zeros((2, 4), jnp.int32)
    run = jax.jit(model.apply, static_argnames="train")
    one, other = (run(params, (), tokens, key=jax.random.key(s), train=True)[0] for s in (0, 1))
    assert (one != other).any()
    one, other = (run(params, (), tokens, key=jax.random.key(s))[0] for s in (0, 1))
    assert (one == other).all()


@pytest.mark.parametrize("exact", [True, False])
def test_gelu_is_the_one_that_was_asked_for(exact):
    model, params, tokens = _specs(dataclasses.replace(TINY, exact_gelu=exact))
    jaxpr = str(jax.make_jaxpr(lambda p, x: model.apply(p, (), x)[0])(params, tokens))
    assert ("erf" in jaxpr, "tanh" in jaxpr) == (exact, not exact)


def test_relu_squared_by_hand(x64):
    """One token, width 1, every kernel 1 and no attention: x + relu(norm(x)) squared."""
    config = models.GPTConfig(
        layers=1, heads=1, width=2, hidden=2, vocabulary=2, context=1, norm="rms",
        mlp="relu_squared",
    )  # fmt: skip
    model, params = _filled(config)
    params = jax.tree.map(jnp.zeros_like, params)
    params["token"]["embedding"] = jnp.array([[3.0, -4.0], [0.0, 0.0]])
    block = params["blocks"]["0"]
    block["mlp_norm"]["scale"] = params["norm"]["scale"] = jnp.ones(2)
    block["mlp"]["up"]["kernel"] = block["mlp"]["down"]["kernel"] = jnp.eye(2)
    y, _ = model.apply(params, (), jnp.array([[0]]))
    # The root mean square of (3, -4) is 5 / √2, so the first half adds (9 · 2 / 25, 0).
    stream = np.array([3 + 0.72, -4.0])
    stream /= np.sqrt((stream**2).mean())
    np.testing.assert_allclose(y[0, 0], [stream @ [3.0, -4.0], 0], rtol=1e-6)


def test_blocks_that_end_in_zeros_begin_as_the_identity():
    config = dataclasses.replace(TINY, ending="zero")
    tokens = jnp.array([[0, 3, 1, 4]])
    params, _ = jax.jit(lambda: models.gpt(config).init(KEY, tokens))()
    none = {**params, "blocks": jax.tree.map(jnp.zeros_like, params["blocks"])}
    y, z = (models.gpt(config).apply(each, (), tokens)[0] for each in (params, none))
    np.testing.assert_array_equal(y, z)
    assert float(jnp.std(params["blocks"]["0"]["mlp"]["up"]["kernel"])) > 0


def test_an_input_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="7 positions, the table 6 rows"):
        _specs(TINY, length=7)


def test_documents_side_by_side_are_documents_by_themselves(x64):
    """Logits of a packed row are those of each of its documents alone; padding reaches nobody."""
    model, params = _filled(TINY)
    packed = {
        "tokens": jnp.array([[0, 3, 1, 4, 2, 0]]),
        "segments": jnp.array([[1, 1, 2, 2, 2, 0]]),
        "positions": jnp.array([[0, 1, 0, 1, 2, 0]]),
    }
    run = jax.jit(lambda x: model.apply(params, (), x)[0])
    y = run(packed)
    for start, stop in ((0, 2), (2, 5)):
        alone = run(packed["tokens"][:, start:stop])
        np.testing.assert_allclose(y[:, start:stop], alone, rtol=1e-11)
    np.testing.assert_array_equal(run({"tokens": packed["tokens"]}), run(packed["tokens"]))


def test_a_packed_spec_initialises_the_same_parameters():
    tokens = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    model = models.gpt(dataclasses.replace(TINY, layers=1))

    @jax.jit
    def both(key):
        packed = {"tokens": tokens, "segments": tokens, "positions": tokens}
        return [model.init(key, spec)[0] for spec in (tokens, packed)]

    one, other = both(KEY)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
