"""The train step of every model of the zoo lowers for CPU, CUDA and TPU, and none need be there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from functorch_kit import models, nn, train
from functorch_kit.types import Outcome
from tests.models.test_counts import PUBLISHED
from tests.models.test_zoo import SMALL

PLATFORMS = ("cpu", "cuda", "tpu")
KEY = jax.random.key(0)


def _images(side: int, channels: int = 3) -> jax.ShapeDtypeStruct:
    return _numbers(2, side, side, channels)


def _numbers(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _tokens(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _specs(tree: Any) -> Any:
    """Those of a batch as JAX takes it, in 32 bits."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)),
        tree,
    )


TINY = {
    **{name: (small.model, _specs(small.x)) for name, small in SMALL.items()},
    "mlp": (models.mlp(models.MLPConfig((4,), dropout=0.1)), _images(3)),
    "cnn": (models.cnn(models.CNNConfig((2, 3), 4)), _images(8, 1)),
    "alexnet": (models.alexnet(models.AlexNetConfig(3, dense=4)), _images(64)),
    "vgg": (models.vgg(models.VGGConfig(11, 3, use_norm=True, dense=4)), _images(32)),
    "resnet of bottlenecks": (
        models.resnet(models.ResNetConfig(50, 3, "imagenet", 2)),
        _images(32),
    ),
    "inception": (models.inception(models.InceptionConfig(3, auxiliary=True)), _images(64)),
    "gpt": (
        models.gpt(models.GPTConfig(2, 2, 4, 6, 5, dropout=0.1)),
        _tokens(2, 6),
    ),
    "gpt, repeated": (
        models.gpt(models.GPTConfig(2, 2, 4, 6, 5, is_repeated=True)),
        _tokens(2, 6),
    ),
    "vae": (
        models.autoencoder(models.AutoencoderConfig((4, 4, 1), (5,), 2, is_variational=True)),
        _images(4, 1),
    ),
    "gan": (models.gan(nn.dense(5), nn.dense(1), latent=5), _numbers(2, 5)),
    "gpt_decoder": (models.gpt_decoder(models.GPTConfig(1, 2, 4, 6, 5), cache=6), _tokens(2, 3)),
    "tree_lstm": (
        models.tree_lstm(models.TreeLSTMConfig(5, 3, 4, 2)),
        _specs(models.forest([((0, 1), 2), (3, 4)], width=2)),
    ),
    "module_network": (
        models.module_network(models.ModuleNetworkConfig(6, 4, 3)),
        _specs(models.layouts([("exists", 0, ("find", 3))], width=2))
        | {"context": {"places": _numbers(1, 4, 3)}},
    ),
}
PARTS = {"dynamic", "schedule", "forest", "layouts", "tree_lstm_one_by_one"}
"""What makes the input of models, and what runs inside ``tree_lstm`` and ``module_network``."""
SLOW = ("resnet of bottlenecks", "inception")


def lowered(model: Any, x: Any) -> str:
    """The StableHLO of a step of AdamW; of arrays, nothing but their shapes is there."""

    def objective(params: Any, model_state: Any, batch: Any, *, key: Any, train: bool) -> Outcome:
        y, state = model.apply(params, model_state, batch["x"], key=key, train=train)
        squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(y)]
        return Outcome(sum(squares[1:], squares[0]), jnp.float32(1), state, {})

    def optimizer(hparams: Any) -> optax.GradientTransformation:
        return optax.adamw(hparams["learning_rate"])

    hparams = {"learning_rate": jax.ShapeDtypeStruct((), jnp.float32)}
    key = jax.eval_shape(lambda: KEY)
    state = jax.eval_shape(train.make_init(model, optimizer, x), hparams, key)
    step = train.make_train_step(objective, optimizer)
    with jax.numpy_dtype_promotion("standard"):
        traced = jax.jit(step).trace(hparams, state, {"x": x})
    return traced.lower(lowering_platforms=PLATFORMS).as_text()


@pytest.mark.parametrize("name", [name for name in TINY if name not in SLOW])
def test_a_small_model_lowers_for_all_three(name: str):
    text = lowered(*TINY[name])
    assert "func.func public @main" in text
    assert "custom_call @xla_ffi_python" not in text


@pytest.mark.soak
@pytest.mark.parametrize("name", SLOW)
def test_one_with_many_parts_lowers_for_all_three(name: str):
    assert "func.func public @main" in lowered(*TINY[name])


@pytest.mark.soak
@pytest.mark.parametrize(("model", "x"), [row[:2] for row in PUBLISHED.values()], ids=PUBLISHED)
def test_a_published_size_lowers_for_all_three_and_takes_no_memory(model: Any, x: Any):
    before = sum(array.nbytes for array in jax.live_arrays())
    assert "func.func public @main" in lowered(model, x)
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 1 << 20


def test_every_model_of_the_zoo_is_there():
    made = {name for name in models.__all__ if name.islower() and name not in PARTS}
    assert made <= {name.split(",")[0].split(" ")[0] for name in TINY}
