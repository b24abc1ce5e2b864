"""``init_from``: a job begins with a file of weights or with another run, without any code."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import interop, models, sweep, train
from functorch_kit.config import (
    MLP,
    SGD,
    Config,
    Digits,
    GPTNano,
    ResNet18,
    Spirals,
    SyntheticImages,
    Text,
    Train,
    build,
    load_run,
    zoo,
)
from functorch_kit.config.models import MODELS
from functorch_kit.config.zoo import zoo_config, zoo_model
from functorch_kit.errors import UserError

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")

RESNET = models.ResNetConfig(depth=18, outputs=5, width=2, stem="cifar")
VIT = models.ViTConfig(layers=2, heads=1, width=4, patch=4, outputs=5)


def drawn(zoo_of: Any, channels: int) -> tuple[Any, Any]:
    """Parameters and state of 8×8 images, away from their first values."""
    spec = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
    shapes = jax.eval_shape(lambda: zoo_model(zoo_of).init(jax.random.key(0), spec))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda s: random.uniform(0.1, 0.5, s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A small ViT of 5 classes under Hugging Face's names."""
    params, state = drawn(VIT, 1)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    interop.hugging_face(VIT).save(path, params, state)
    return str(path), params


def first_state(config: Config) -> Any:
    experiment = build(config)
    hparams = train.as_hparams(experiment.hparams)
    x_spec = experiment.data.train.spec["x"]
    init = train.make_init(experiment.model, experiment.optimizer, x_spec, experiment.options)
    return train.compiled_init(init, hparams, jax.random.key(0))(hparams, jax.random.key(0))


def fine_tuning(path: str, **changes: Any) -> Config:
    job = Config(
        model=MODELS["vit_ti16"](layers=2, heads=1, width=4, patch=4),
        data=SyntheticImages(count=40, shape=(8, 8, 1), classes=4),
        optimizer=SGD(learning_rate=0.1, learning_rates=("blocks=0.5", "head=2.0")),
        train=Train(steps=2, batch_size=8, frozen=("patches", "blocks/0")),
        init_from=path,
        quiet=True,
    )
    return dataclasses.replace(job, **changes)


def same(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_a_published_net_is_fine_tuned_with_a_new_head_and_frozen_parts(vit_file: Any):
    path, params = vit_file
    job = fine_tuning(path)
    experiment = build(job)
    assert experiment.notes == (
        f"38 arrays from {path!r}", "head is new: 5 outputs there, 4 here",
    )  # fmt: skip
    begun = first_state(job).params
    assert all(same(begun[part], params[part]) for part in params if part != "head")
    assert begun["head"]["kernel"].shape == (4, 4)
    after = experiment.fit().state.params
    assert same(after["patches"], params["patches"])
    assert same(after["blocks"]["0"], params["blocks"]["0"])
    assert not same(after["blocks"]["1"], params["blocks"]["1"])
    assert not same(after["head"], begun["head"])


def test_each_path_learns_at_a_rate_of_its_own(vit_file: Any):
    path, _ = vit_file
    job = fine_tuning(path)
    experiment = build(job)
    optimizer = experiment.optimizer(train.as_hparams(experiment.hparams))
    ones = jax.tree.map(jnp.ones_like, first_state(job).params)
    updates: Any = optimizer.update(ones, optimizer.init(ones), ones)[0]
    sizes = {"norm": 0.1, "blocks": 0.05, "head": 0.2}
    for part, size in sizes.items():
        np.testing.assert_allclose(jax.tree.leaves(updates[part])[0], -size, rtol=1e-6)


def test_running_statistics_come_along_and_a_head_of_as_many_classes(tmp_path: Path):
    params, state = drawn(RESNET, 1)
    path = str(tmp_path / "resnet18.safetensors")
    interop.torchvision(RESNET).save(path, params, state)
    job = fine_tuning(
        path,
        model=ResNet18(width=2, stem="cifar"),
        data=SyntheticImages(count=40, shape=(8, 8, 1), classes=5),
        train=Train(batch_size=8),
        optimizer=SGD(),
    )
    assert build(job).notes == (f"102 arrays from {path!r}",)
    begun = first_state(job)
    assert same((begun.params, begun.model_state), (params, state))


def test_a_run_that_went_on_needs_the_file_no_more(vit_file: Any, tmp_path: Path):
    copy = tmp_path / "a.safetensors"
    copy.write_bytes(Path(vit_file[0]).read_bytes())
    job = fine_tuning(str(copy), run_dir=str(tmp_path / "run"))
    build(job).fit()
    copy.unlink()
    again = load_run(tmp_path / "run")
    assert again.init_from == str(copy)
    again = dataclasses.replace(again, resume=str(tmp_path / "run"), quiet=True)
    again.train.steps = 4
    assert build(again).fit().summary["steps"] == 4
    with pytest.raises(UserError, match="does not exist: give a file of weights"):
        build(fine_tuning(str(copy), run_dir=str(tmp_path / "run"), overwrite=True))


def small(**changes: Any) -> Config:
    job = Config(model=MLP(hidden=(6,), dropout=0.0), optimizer=SGD(0.1), quiet=True)
    job.train.steps, job.train.eval_every = 4, 2
    return dataclasses.replace(job, **changes)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_run_begins_with_what_another_run_is_judged_by(tmp_path: Path, ema: float | None):
    before = small(run_dir=str(tmp_path))
    before.train.ema_decay = ema
    result = build(before).fit()
    begun = first_state(small(init_from=str(tmp_path)))
    for one, other in zip(
        jax.tree.leaves(begun.params), jax.tree.leaves(result.params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=0 if ema is None else 1e-7)
    if ema is not None:
        assert not np.array_equal(result.params["head"]["kernel"],
                                  result.state.params["head"]["kernel"])  # fmt: skip


def test_a_run_on_other_classes_gives_all_but_its_head(tmp_path: Path):
    build(small(run_dir=str(tmp_path), data=Digits())).fit()
    job = small(init_from=str(tmp_path), data=SyntheticImages(count=40, shape=(8, 8, 1), classes=3))
    job.train.batch_size = 8
    assert build(job).notes[1] == "head is new: 10 outputs there, 3 here"


def test_a_run_of_another_net_is_refused_with_the_name_that_differs(tmp_path: Path):
    build(small(run_dir=str(tmp_path))).fit()
    wider = small(init_from=str(tmp_path), model=MLP(hidden=(7,)))
    with pytest.raises(UserError, match=r"does not fit: tensor 'params/.*' has shape"):
        build(wider)
    deeper = small(init_from=str(tmp_path), model=MLP(hidden=(6, 6)))
    with pytest.raises(UserError, match="no tensor 'params/hidden_1/bias'"):
        build(deeper)
    with pytest.raises(UserError, match="has shape"):
        build(small(init_from=str(tmp_path), data=Spirals()))


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path):
    build(small(run_dir=str(tmp_path))).fit()
    for step in filter(Path.is_dir, [*(tmp_path / "checkpoints").iterdir()]):
        shutil.rmtree(step)
    with pytest.raises(UserError, match="has no checkpoint: train it first"):
        build(small(init_from=str(tmp_path)))


def test_lanes_begin_with_what_their_solo_runs_begin_with(tmp_path: Path):
    result = build(small(run_dir=str(tmp_path))).fit()
    # So small a rate moves nothing in single precision.
    jobs = [small(init_from=str(tmp_path), optimizer=SGD(rate)) for rate in (1e-30, 1e-1)]
    swept = sweep.run(jobs, mode="lanes", devices=1, say=None)
    still, moved = (job.result.state.params for job in swept.jobs if job.result is not None)
    assert same(still, result.params)
    assert not same(moved, result.params)


def test_the_factor_of_the_initial_weights_is_for_those_that_are_new(vit_file: Any):
    path, params = vit_file
    plain, scaled = fine_tuning(path), fine_tuning(path)
    scaled.train.init_scale = 3.0
    one, other = first_state(plain).params, first_state(scaled).params
    assert same(other["blocks"], params["blocks"])
    np.testing.assert_allclose(other["head"]["kernel"], 3 * one["head"]["kernel"], rtol=1e-6)


def test_a_language_model_begins_with_more_positions_than_it_reads(tmp_path: Path):
    net = GPTNano(layers=1, heads=1, width=4, use_bias=True, exact_gelu=False)
    job = Config(model=net, data=Text(context=8), train=Train(steps=2, batch_size=4), quiet=True)
    experiment = build(job)
    zoo = zoo_config("gpt_nano", {**dataclasses.asdict(net), "context": 16,
                                  "vocabulary": len(experiment.data.vocabulary)})  # fmt: skip
    params, state = zoo_model(zoo).init(jax.random.key(3), jnp.zeros((1, 16), jnp.int32))
    interop.hugging_face(zoo).save(tmp_path / "model.safetensors", params, state)
    job = dataclasses.replace(job, init_from=str(tmp_path))
    assert build(job).notes[1:] == ("position/embedding: the first 8 of 16 rows are used",)
    begun = first_state(job)
    np.testing.assert_array_equal(begun.params["token"]["embedding"], params["token"]["embedding"])


def test_every_model_of_the_zoo_with_a_published_size_can_be_chosen():
    sizes = models.GPT_SIZES | models.VIT_SIZES | models.MIXER_SIZES
    assert sizes.keys() <= MODELS.keys()
    for name, published in sizes.items():
        chosen = zoo_config(name, dataclasses.asdict(MODELS[name]()))
        # What follows from the data is no setting of the model.
        free = {"context", "vocabulary", "outputs"}
        for field in dataclasses.fields(published):
            if field.name not in free:
                assert getattr(chosen, field.name) == getattr(published, field.name), field.name


def test_every_choice_of_a_model_is_one_of_the_zoo():
    for name, settings in MODELS.items():
        assert type(zoo_config(name, dataclasses.asdict(settings()))) in zoo.MAKERS
