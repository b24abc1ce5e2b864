"""Tables of foreign names: they cover each model, lose no bit, and refuse what does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import interop, models
from functorch_kit.config.zoo import zoo_model
from functorch_kit.interop.table import named_leaves

IMAGES = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((1, 8), jnp.int32)
TINY_GPT2 = dataclasses.replace(
    models.GPT_SIZES["gpt2"], layers=2, heads=2, width=4, vocabulary=11, context=8
)
TINY_LLAMA = dataclasses.replace(
    models.GPT_SIZES["llama3_8b"],
    layers=2, heads=4, kv_heads=2, width=8, hidden=12, vocabulary=11, context=8,
)  # fmt: skip
TINY_VIT = models.ViTConfig(layers=2, heads=2, width=4, patch=16, outputs=5)
TINY_RESNET = models.ResNetConfig(depth=18, width=2, outputs=5)

PUBLISHED: dict[str, tuple[Any, Any]] = {
    "alexnet": (models.AlexNetConfig(), IMAGES),
    **{
        f"vgg{depth}{'_bn' * norm}": (models.VGGConfig(depth=depth, use_norm=norm), IMAGES)
        for depth in (11, 13, 16, 19)
        for norm in (False, True)
    },
    **{
        f"googlenet {kind}": (models.InceptionConfig(auxiliary=kind == "with heads"), IMAGES)
        for kind in ("alone", "with heads")
    },
    **{f"resnet{d}": (models.ResNetConfig(depth=d), IMAGES) for d in (18, 34, 50, 101, 152)},
    **{name: (models.VIT_SIZES[name], jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
       for name in ("vit_b16", "vit_l32")},
    **{name: (models.GPT_SIZES[name], TOKENS) for name in ("gpt2", "gpt2_xl", "llama2_7b",
                                                           "llama3_8b")},
}  # fmt: skip
# Numbers of tensors that the libraries' own state dicts have, counters and masks left out.
TENSORS = {"alexnet": 16, "vgg16": 32, "resnet18": 102, "resnet50": 267, "gpt2": 148,
           "vit_b16": 200, "llama2_7b": 291}  # fmt: skip


def specs(config: Any, x: Any) -> tuple[Any, Any]:
    return jax.eval_shape(lambda: zoo_model(config).init(jax.random.key(0), x))


def numbers(specs: Any) -> Any:
    random = np.random.default_rng(0)
    return jax.tree.map(lambda s: random.standard_normal(s.shape).astype(s.dtype), specs)


QUICK = {"alexnet", "vgg16_bn", "vgg16", "googlenet with heads", "resnet18", "resnet50", "gpt2",
         "vit_b16"}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in PUBLISHED],
)
def test_a_table_names_every_leaf_of_a_published_model_once(name: str):
    config, x = PUBLISHED[name]
    leaves = named_leaves(*specs(config, x)).keys()
    found = interop.tables(config)
    assert found
    for table in found:
        ours = [path for entry in table.entries for path in entry.ours]
        assert sorted(ours) == sorted(leaves), table.name
        theirs = [entry.theirs for entry in table.entries]
        assert len(set(theirs)) == len(theirs)
        if name in TENSORS:
            assert len(theirs) == TENSORS[name]


@pytest.mark.parametrize(
    ("config", "x"),
    [
        (models.AlexNetConfig(dense=3, outputs=4), IMAGES),
        (models.VGGConfig(depth=11, use_norm=True, dense=3, outputs=4), IMAGES),
        (TINY_RESNET, IMAGES),
        (TINY_VIT, IMAGES),
        (TINY_GPT2, TOKENS),
        (TINY_LLAMA, TOKENS),
    ],
    ids=["alexnet", "vgg", "resnet", "vit", "gpt2", "llama"],
)
def test_ours_written_under_foreign_names_comes_back_to_the_bit(
    config: Any, x: Any, tmp_path: Path
):
    params, state = numbers(specs(config, x))
    for number, table in enumerate(interop.tables(config)):
        table.save(tmp_path / f"{number}.safetensors", params, state)
        read = interop.load(tmp_path / f"{number}.safetensors", config, params, state)
        assert jax.tree.structure(read) == jax.tree.structure((params, state))
        for one, other in zip(jax.tree.leaves(read), jax.tree.leaves((params, state)), strict=True):
            np.testing.assert_array_equal(one, other)


def written(config: Any = TINY_RESNET, x: Any = IMAGES) -> tuple[Any, dict[str, Any], Any, Any]:
    params, state = numbers(specs(config, x))
    table = interop.tables(config)[0]
    return table, table.write(params, state), params, state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), "there is no tensor 'layer1.0.conv1.weight'"),
        (lambda t: t.update(strange=np.ones(2)), "tensor 'strange': torchvision resnet18 has no"),
        (lambda t: t.update({"conv1.weight": t["conv1.weight"][:, :2]}),
         r"tensor 'conv1.weight' has shape .2, 2, 7, 7., and stem/conv/kernel"),
        (lambda t: t.update({"bn1.running_var": np.ones(1)}), "model_state/stem/norm/var"),
        (lambda t: t.update({"bn1.weight": np.ones(2, np.int64)}), "'bn1.weight' is int64"),
        (lambda t: t.update({"fc.weight": t["fc.weight"][:, :3]}), "'fc.weight' has shape .5, 3."),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(change: Any, message: str):
    table, tensors, params, state = written()
    change(tensors)
    with pytest.raises(interop.InteropError, match=message):
        table.read(tensors, params, state)


def test_a_square_kernel_of_another_layout_is_not_mistaken(tmp_path: Path):
    # A Linear of (3, 3) fits either way round: only the table knows that it is transposed.
    params, state = {"head": {"kernel": np.arange(9.0, dtype=np.float32).reshape(3, 3)}}, ()
    from functorch_kit.interop.entries import dense

    table = interop.Table("square", dense("fc", "head", use_bias=False))
    assert table.write(params, state)["fc.weight"][0].tolist() == [0.0, 3.0, 6.0]


def test_another_number_of_classes_makes_the_head_new_and_says_so():
    table, tensors, params, _ = written()
    own = dataclasses.replace(TINY_RESNET, outputs=7)
    found = table.read(tensors, *specs(own, IMAGES))
    assert found.notes == ("head is new: 5 outputs there, 7 here",)
    assert "params/head/kernel" not in found.arrays
    assert "params/head/bias" not in found.arrays
    assert len(found.arrays) == len(table.entries) - 2
    fresh = numbers(specs(own, IMAGES))
    merged, _ = found.into(*fresh)
    assert merged["head"] is not params["head"]
    np.testing.assert_array_equal(merged["head"]["kernel"], fresh[0]["head"]["kernel"])
    np.testing.assert_array_equal(
        merged["stem"]["conv"]["kernel"], params["stem"]["conv"]["kernel"]
    )


def test_load_wants_the_head_too(tmp_path: Path):
    table, _, params, state = written()
    table.save(tmp_path / "a.safetensors", params, state)
    own = dataclasses.replace(TINY_RESNET, outputs=7)
    with pytest.raises(interop.InteropError, match=r"'head/bias' is not there .*5 outputs"):
        interop.load(tmp_path / "a.safetensors", own, *specs(own, IMAGES))


def test_a_file_without_a_head_leaves_it_new():
    _, _, params, state = written(TINY_VIT)
    table = interop.hugging_face(TINY_VIT)
    tensors = {
        name.removeprefix("vit."): value
        for name, value in table.write(params, state).items()
        if not name.startswith("classifier")
    }
    tensors["pooler.dense.weight"] = np.ones((4, 4), np.float32)
    found = table.read(tensors, params, state)
    assert found.notes == ("head/kernel is new: the file has none",
                           "head/bias is new: the file has none")  # fmt: skip
    np.testing.assert_array_equal(found.arrays["params/norm/scale"], params["norm"]["scale"])


def test_a_shorter_context_takes_the_first_positions_of_a_text_and_not_of_an_image():
    table, tensors, params, state = written(TINY_GPT2, TOKENS)
    short = dataclasses.replace(TINY_GPT2, context=5)
    few = jax.ShapeDtypeStruct((1, 5), jnp.int32)
    found = table.read(tensors, *specs(short, few))
    assert found.notes == ("position/embedding: the first 5 of 8 rows are used",)
    np.testing.assert_array_equal(
        found.arrays["params/position/embedding"], params["position"]["embedding"][:5]
    )
    _, _, params, state = written(TINY_VIT)
    small = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    with pytest.raises(interop.InteropError, match="position_embeddings"):
        interop.hugging_face(TINY_VIT).read(
            interop.hugging_face(TINY_VIT).write(params, state), *specs(TINY_VIT, small)
        )


def test_a_head_that_is_said_to_be_tied_has_to_be():
    table, tensors, params, state = written(TINY_GPT2, TOKENS)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
    table.read(tensors, params, state)
    tensors["lm_head.weight"] += 1
    with pytest.raises(interop.InteropError, match="differ, and Hugging Face GPT-2 has one"):
        table.read(tensors, params, state)


@pytest.mark.soak
def test_auxiliary_heads_are_passed_over_new_or_taken():
    both = {kind: models.InceptionConfig(outputs=3, auxiliary=kind) for kind in (False, True)}
    made = {kind: numbers(specs(config, IMAGES)) for kind, config in both.items()}
    tables = {kind: interop.torchvision(config) for kind, config in both.items()}
    files = {kind: tables[kind].write(*made[kind]) for kind in both}
    assert tables[False].read(files[True], *made[False]).notes == ()
    assert tables[True].read(files[True], *made[True]).notes == ()
    notes = tables[True].read(files[False], *made[True]).notes
    assert len(notes) == 2 * 7 + 4  # convolution, four of its norm, two dense layers of two each
    assert "auxiliary_0/head/kernel is new: the file has none" in notes


def test_half_precision_becomes_what_the_model_has():
    table, tensors, params, state = written()
    halves = {
        name: value.astype(jnp.bfloat16) if value.dtype == np.float32 else value
        for name, value in tensors.items()
    }
    found = table.read(halves, params, state)
    assert found.arrays["params/head/bias"].dtype == np.float32


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (interop.torchvision, models.ResNetConfig(is_preactivation=True)),
        (interop.torchvision, TINY_GPT2),
        (interop.hugging_face, models.GPTConfig()),
        (interop.hugging_face, dataclasses.replace(TINY_GPT2, is_repeated=True)),
        (interop.hugging_face, models.AlexNetConfig()),
    ],
)
def test_a_model_without_a_table_is_refused(make: Any, config: Any):
    with pytest.raises(interop.InteropError, match=r"there is no table|are stacked"):
        make(config)


def test_a_file_of_another_model_says_which_tensor_is_missing(tmp_path: Path):
    table, _, params, state = written()
    table.save(tmp_path / "resnet.safetensors", params, state)
    with pytest.raises(interop.InteropError, match="does not fit: there is no tensor"):
        interop.load(tmp_path / "resnet.safetensors", TINY_VIT, *specs(TINY_VIT, IMAGES))
