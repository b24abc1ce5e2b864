from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models
from functorch_kit.types import path_name

KEY = jax.random.key(0)


def _paths(params) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _filled(model, shape):
    """Parameters of the right shapes, without compiling a generator for each of them."""
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    made = jax.eval_shape(lambda: model.init(KEY, spec))
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), made)


MODELS = {
    "mlp": (models.mlp(models.MLPConfig(hidden=(6, 5), outputs=3, dropout=0.5)), (4, 2, 3)),
    "linear": (models.mlp(models.MLPConfig(hidden=(), outputs=3)), (4, 5)),
    "cnn": (models.cnn(models.CNNConfig(features=(2, 3), dense=4, outputs=3)), (4, 6, 5, 2)),
    "deep cnn": (models.cnn(models.CNNConfig(features=(2,) * 4, dense=4, outputs=3)), (4, 2, 2, 1)),
}


@pytest.mark.parametrize(("model", "shape"), MODELS.values(), ids=MODELS)
def test_a_batch_of_any_size_gives_one_row_of_outputs_each(model, shape, maybe_jit):
    params, state = _filled(model, shape)
    y, after = maybe_jit(model.apply)(params, state, jnp.ones((2, *shape[1:])))
    assert y.shape == (2, 3)
    assert after == state == ()


def test_paths_are_those_that_the_documentation_promises():
    spec = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    params, _ = jax.eval_shape(lambda: models.cnn(models.CNNConfig()).init(KEY, spec))
    assert _paths(params) == [
        f"{part}/{leaf}"
        for part in ("conv_0", "conv_1", "dense", "head")
        for leaf in ("bias", "kernel")
    ]
    assert params["dense"]["kernel"].shape == (4 * 4 * 64, 128)


def test_the_lectures_net_is_two_matrices(maybe_jit, x64):
    """y = max(x @ W1, 0) @ W2, with no biases."""
    model = models.mlp(models.MLPConfig(hidden=(7,), outputs=2, use_bias=False))
    random = np.random.default_rng(0)
    first, second, x = (random.normal(size=size) for size in ((5, 7), (7, 2), (3, 5)))
    params = {"hidden_0": {"kernel": jnp.asarray(first)}, "head": {"kernel": jnp.asarray(second)}}
    spec = jax.ShapeDtypeStruct(x.shape, jnp.float64)
    made, _ = jax.eval_shape(lambda: model.init(KEY, spec))
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    y, _ = maybe_jit(model.apply)(params, (), jnp.asarray(x))
    np.testing.assert_allclose(y, np.maximum(x @ first, 0) @ second, rtol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_dropout_works_in_training_only(name):
    model, shape = MODELS[name]
    x = jnp.ones(shape)
    params, state = _filled(model, shape)

    @jax.jit
    def several(first, second):
        train = [model.apply(params, state, x, key=k, train=True)[0] for k in (first, second)]
        evaluation = [model.apply(params, state, x, key=k)[0] for k in (first, second)]
        return train, evaluation

    train, evaluation = several(jax.random.key(2), jax.random.key(3))
    assert (train[0] != train[1]).any()
    assert (evaluation[0] == evaluation[1]).all()


def test_an_image_smaller_than_the_pool_is_refused():
    model = models.cnn(models.CNNConfig())
    with pytest.raises(ValueError, match="does not fit an input of size") as caught:
        _filled(model, (2, 1, 1, 1))
    assert "in part 'pool'" in caught.value.__notes__


def test_a_config_is_frozen_and_hashable():
    assert hash(models.CNNConfig()) == hash(models.CNNConfig())
    assert models.MLPConfig(hidden=(3,)) != models.MLPConfig()
