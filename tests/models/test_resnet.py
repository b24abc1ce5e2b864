from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, program
from functorch_kit.types import path_name

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
TINY = models.ResNetConfig(width=2, outputs=3, stem="cifar")


def _specs(config: models.ResNetConfig, *shape: int):
    model = models.resnet(config)
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    return model, jax.eval_shape(lambda: model.init(KEY, spec)), spec


def _filled(config: models.ResNetConfig, *shape: int, dtype: type = np.float32):
    """Parameters, state and images from NumPy: no generator is compiled for each shape."""
    random = np.random.default_rng(3)
    model, (params, state), _ = _specs(config, *shape)
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape) * 0.5, dtype), params)
    state = jax.tree.map(lambda s: jnp.asarray(random.uniform(0.5, 1, s.shape), dtype), state)
    return model, params, state, jnp.asarray(random.normal(size=shape), dtype)


def test_resnet_18_takes_1_81_billion_multiply_adds_at_224():
    # Multiply-adds, layer by layer: side² of the output × window × channels in × channels out.
    stem = 112**2 * 49 * 3 * 64
    first = 4 * 56**2 * 9 * 64 * 64
    others = sum(
        side**2 * (9 * half * width + 3 * 9 * width * width + half * width)
        for side, half, width in ((28, 64, 128), (14, 128, 256), (7, 256, 512))
    )
    products = stem + first + others + 512 * 1000
    assert products == 1_814_073_344
    model, (params, state), images = _specs(models.ResNetConfig(), 1, 224, 224, 3)
    counted = program.flops(lambda p, s, x: model.apply(p, s, x)[0], params, state, images)
    assert counted == pytest.approx(2 * products, rel=0.01)
    assert counted == pytest.approx(2 * 1.81e9, rel=0.01)


def test_a_parameters_path_is_its_address():
    _, (params, state), _ = _specs(models.ResNetConfig(), 1, 64, 64, 3)
    shapes = {
        path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    assert shapes["stem/conv/kernel"] == (7, 7, 3, 64)
    assert shapes["stages/0/blocks/1/body/conv_1/kernel"] == (3, 3, 64, 64)
    assert shapes["stages/3/blocks/0/body/conv_0/kernel"] == (3, 3, 256, 512)
    assert shapes["stages/3/blocks/0/shortcut/conv/kernel"] == (1, 1, 256, 512)
    assert shapes["stages/1/blocks/1/body/norm_0/scale"] == (128,)
    assert shapes["head/kernel"] == (512, 1000)
    # 20 convolutions, each with its norm's two, and the head's two.
    assert len(shapes) == 20 * 3 + 2
    assert sum(name.split("/")[-2] == "conv" and "shortcut" in name for name in shapes) == 3
    assert set(state["stages"]["2"]["blocks"]["0"]["shortcut"]["norm"]) == {"mean", "var"}


@pytest.mark.parametrize(("depth", "stem", "side"), [(50, "imagenet", 2), (18, "cifar", 8)])
def test_the_stages_shrink_the_image_as_the_paper_does(depth, stem, side):
    config = models.ResNetConfig(depth=depth, stem=stem, width=2, outputs=5)
    model, (params, state), images = _specs(config, 3, 64, 64, 3)
    channels = 16 * (4 if depth == 50 else 1)
    last = program.summary(model, images).totals["stages/3/blocks/1/body"]
    assert last.output == f"float32[3,{side},{side},{channels}]"
    y = jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, state, images)
    assert y.shape == (3, 5)


def test_training_moves_every_statistic_and_evaluation_none():
    model, params, state, x = _filled(TINY, 4, 8, 8, 3)
    run = jax.jit(model.apply, static_argnames="train")
    _, same = run(params, state, x, train=False)
    _, moved = run(params, state, x, train=True)
    for before, untouched, after in zip(*map(jax.tree.leaves, (state, same, moved)), strict=True):
        np.testing.assert_array_equal(before, untouched)
        assert (before != after).any()


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_the_gradient_is_the_finite_difference_and_reaches_every_parameter(train, x64):
    model, params, state, x = _filled(TINY, 3, 8, 8, 2, dtype=np.float64)
    random = np.random.default_rng(5)

    def value(params, x):
        y, _ = model.apply(params, state, x, train=train)
        return jnp.sum(jnp.sin(y))

    run = jax.jit(jax.value_and_grad(value, (0, 1)))  # one program for values and slopes
    _, slopes = run(params, x)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes))
    for _ in range(3):
        direction = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), (params, x)
        )
        ahead, behind = (
            run(*jax.tree.map(lambda a, d, s=sign: a + s * 1e-7 * d, (params, x), direction))[0]
            for sign in (1, -1)
        )
        expected = (ahead - behind) / 2e-7
        terms = jax.tree.map(jnp.vdot, slopes, direction)
        got = sum(jax.tree.leaves(terms))
        np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (models.ResNetConfig(depth=19), "depth 19 is not one of 18, 34, 50, 101, 152, 200"),
        (models.ResNetConfig(stem="imagnet"), "stem 'imagnet' is not 'imagenet' or 'cifar'"),
    ],
)
def test_what_there_is_none_of_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        models.resnet(config)
