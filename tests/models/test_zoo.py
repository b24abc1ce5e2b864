"""What every model of the zoo must do, on small forms of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, nn, program

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


class Small(NamedTuple):
    """A model, its input, the shape of its output, and whether training differs."""

    model: nn.Model
    x: Any
    y_shape: tuple[int, ...]
    trains: bool = False


def _images(side: int, channels: int = 3):
    return RANDOM.normal(size=(2, side, side, channels))


SOURCE = {
    "source": np.array([[1, 4, 0, 0], [2, 2, 3, 1]], np.int32),
    "source_lengths": np.array([2, 4], np.int32),
    "target": np.array([[0, 3, 1], [5, 5, 2]], np.int32),
}
TEXT = np.array([[0, 3, 1, 4], [2, 2, 0, 1]], np.int32)
SMALL = {
    "two_layer": Small(
        models.two_layer(models.TwoLayerConfig(4, 3)), RANDOM.normal(size=(2, 5)), (2, 3)
    ),
    "resnet": Small(
        models.resnet(models.ResNetConfig(18, 3, "cifar", 2, is_preactivation=True)),
        _images(8), (2, 3),
    ),
    "mixer": Small(
        models.mixer(models.MixerConfig(2, 4, 2, 3, 5, outputs=3)), _images(4), (2, 3)
    ),
    "vit": Small(models.vit(models.ViTConfig(2, 2, 4, 6, 2, outputs=3)), _images(4), (2, 3)),
    "unet": Small(models.unet(models.UNetConfig((2, 3))), _images(4), (2, 4, 4, 2), trains=True),
    "char_rnn": Small(
        models.char_rnn(models.CharRNNConfig(width=3, vocabulary=5)), TEXT, (2, 4, 5)
    ),
    "seq2seq": Small(
        models.seq2seq(models.Seq2SeqConfig(5, 6, embedding=3, width=4)), SOURCE, (2, 3, 6)
    ),
    "autoencoder": Small(
        models.autoencoder(models.AutoencoderConfig((4, 4, 3), (5,), 2)), _images(4), (2, 4, 4, 3)
    ),
    "llama": Small(
        models.gpt(
            models.GPTConfig(
                2, 4, 8, 6, 5, norm="rms", position="rotary", mlp="swiglu", kv_heads=2, hidden=6
            )
        ),
        TEXT, (2, 4, 5),
    ),
}  # fmt: skip
each_model = pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)


def _filled(small: Small):
    random = np.random.default_rng(1)
    x = jax.tree.map(jnp.asarray, small.x)
    params, state = jax.eval_shape(lambda: small.model.init(KEY, x))
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape) * 0.5), params)
    state = jax.tree.map(lambda s: jnp.asarray(random.uniform(0.5, 1, s.shape)), state)
    return params, state, x


@each_model
def test_eager_is_jitted_and_the_shape_is_the_one_that_is_promised(small: Small, x64):
    params, state, x = _filled(small)
    y, _ = small.model.apply(params, state, x)
    assert y.shape == small.y_shape
    z, _ = jax.jit(small.model.apply)(params, state, x)
    np.testing.assert_allclose(y, z, rtol=1e-10, atol=1e-11)


@each_model
def test_an_example_is_the_same_beside_another(small: Small, x64):
    params, state, x = _filled(small)
    run = jax.jit(lambda x: small.model.apply(params, state, x)[0])
    alone = run(jax.tree.map(lambda leaf: leaf[:1], x))
    np.testing.assert_allclose(run(x)[:1], alone, rtol=1e-10, atol=1e-11)


@each_model
def test_the_gradient_is_the_finite_difference_and_reaches_every_parameter(small: Small, x64):
    params, state, x = _filled(small)
    random = np.random.default_rng(5)

    def value(params):
        return jnp.sum(jnp.sin(small.model.apply(params, state, x, train=small.trains)[0]))

    run = jax.jit(jax.value_and_grad(value))  # one program for values and slopes
    _, slopes = run(params)
    dead = [path for path, leaf in jax.tree_util.tree_leaves_with_path(slopes) if not leaf.any()]
    assert dead == []
    direction = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), params)
    ahead, behind = (
        run(jax.tree.map(lambda p, d, s=sign: p + s * 1e-7 * d, params, direction))[0]
        for sign in (1, -1)
    )
    got = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, direction)))
    np.testing.assert_allclose(got, (ahead - behind) / 2e-7, rtol=1e-4)


def test_a_translators_padding_reaches_nobody(x64):
    params, _, x = _filled(SMALL["seq2seq"])
    model = SMALL["seq2seq"].model
    other = x | {"source": x["source"].at[0, 2:].set(3)}
    run = jax.jit(model.apply)
    y, z = (run(params, (), each)[0] for each in (x, other))
    np.testing.assert_array_equal(y, z)
    short = {"source": x["source"][:1, :2], "target": x["target"][:1]}
    np.testing.assert_allclose(run(params, (), short)[0], y[:1], rtol=1e-11)


def test_a_translator_writes_from_what_it_wrote_before_and_reads_the_source(x64):
    params, _, x = _filled(SMALL["seq2seq"])
    model = SMALL["seq2seq"].model
    run = jax.jit(model.apply)
    y, _ = run(params, (), x)
    later, _ = run(params, (), x | {"target": x["target"].at[:, 2].set(4)})
    np.testing.assert_array_equal(later[:, :2], y[:, :2])
    assert (later[:, 2] != y[:, 2]).any()
    told, _ = run(params, (), x | {"source": x["source"].at[:, 1].set(3)})
    assert (told != y).any(-1).all()


def test_a_stateful_char_rnn_goes_on_where_it_was(x64):
    small = SMALL["char_rnn"]
    params, _, x = _filled(small)
    whole, _ = jax.jit(small.model.apply)(params, (), x)
    model = models.char_rnn(models.CharRNNConfig(width=3, vocabulary=5, stateful=True))
    _, state = model.init(KEY, x)
    state = jax.tree.map(lambda leaf: leaf.astype(float), state)
    apply = jax.jit(model.apply)
    for step in range(x.shape[1]):
        y, state = apply(params, state, x[:, step : step + 1])
        np.testing.assert_allclose(y[:, 0], whole[:, step], rtol=1e-11)


@pytest.mark.soak
def test_inception_speaks_thrice_in_training_and_once_in_evaluation():
    config = models.InceptionConfig(outputs=3, auxiliary=True)
    model, images = models.inception(config), jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    params, state = jax.eval_shape(lambda: model.init(KEY, images))

    def run(train):
        return jax.eval_shape(
            lambda p, s, x: model.apply(p, s, x, key=KEY, train=train), params, state, images
        )

    outputs, after = run(True)
    assert {name: leaf.shape for name, leaf in outputs.items()} == {
        "logits": (2, 3), "auxiliary_0": (2, 3), "auxiliary_1": (2, 3),
    }  # fmt: skip
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert run(False)[0].shape == (2, 3)
    # The plain network runs on the same parameters.
    plain = models.inception(models.InceptionConfig(outputs=3))
    without = {name: leaf for name, leaf in params.items() if not name.startswith("auxiliary")}
    made, _ = jax.eval_shape(lambda: plain.init(KEY, images))
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, without)


def test_alexnets_and_inceptions_images_shrink_as_in_the_papers():
    for model, places in (
        (models.alexnet(models.AlexNetConfig()), {"features": (6, 6, 256)}),
        (
            models.inception(models.InceptionConfig()),
            {"3a": (28, 28, 256), "4e": (14, 14, 832), "5b": (7, 7, 1024)},
        ),
    ):
        images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        totals = program.summary(model, images).totals
        for name, shape in places.items():
            assert totals[name].output == f"float32[1,{','.join(map(str, shape))}]"


def test_a_preactivated_block_whose_body_is_silent_is_its_input(x64):
    config = models.ResNetConfig(18, 3, "cifar", 2, is_preactivation=True)
    small = Small(models.resnet(config), _images(8), (2, 3))
    params, state, x = _filled(small)
    blocks = params["stages"]["0"]["blocks"]
    for block in blocks.values():
        block["body"]["conv_1"]["kernel"] = jnp.zeros_like(block["body"]["conv_1"]["kernel"])
    slope = jax.jit(jax.grad(lambda p: jnp.sum(small.model.apply(p, state, x)[0] ** 2)))(params)
    # Nothing of the first stage's norms is left in the output, and the stem goes straight through.
    silent = slope["stages"]["0"]["blocks"]["1"]["before"]["norm"]["scale"]
    assert not silent.any()
    assert slope["stem"]["conv"]["kernel"].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.vgg(models.VGGConfig(depth=12)), "depth 12 is not one of 11, 13, 16, 19"),
        (lambda: models.unet(models.UNetConfig(())), "features is empty"),
        (lambda: models.seq2seq(models.Seq2SeqConfig(width=5)), "a width of 5 has no half"),
        (lambda: _init("unet", jnp.ones((1, 4, 5, 3))), "multiples of 2"),
        (lambda: _init("vit", jnp.ones((1, 4, 5, 3))), "2×2 do not divide an image of 4×5"),
        (lambda: _init("seq2seq", {"source": TEXT}), "is a dict of source: give source, target"),
        (lambda: _init("seq2seq", SOURCE | {"lengths": TEXT}), "target: give source, target"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()


def _init(name: str, x):
    return SMALL[name].model.init(KEY, x)
