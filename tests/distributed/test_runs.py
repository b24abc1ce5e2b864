"""Runs on a mesh: evaluated, saved, resumed elsewhere, guarded, reported, and refused in a line."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import checkpoint, data, distributed, models, train
from functorch_kit.distributed import Layout, MeshError, make_mesh
from functorch_kit.loop import fit
from functorch_kit.program.hlo import hlo_text, read_module

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

X = np.random.default_rng(0).normal(size=(160, 64)).astype(np.float32)
Y = X[:, :4].argmax(-1).astype(np.int32)


def run(steps: int = 12, **changes: Any) -> Any:
    model = models.mlp(models.MLPConfig(hidden=(64,), outputs=4, dropout=0.1))
    arguments: dict[str, Any] = {
        "optimizer": optax.adam(3e-3), "data": data.arrays(X, Y, batch_size=16), "eval_every": 6,
        "steps": steps, "quiet": True,
    }  # fmt: skip
    return fit(model, train.classification(model), **arguments | changes)


def same(one: Any, other: Any) -> None:
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def test_a_mesh_of_one_device_compiles_to_the_program_without_one():
    texts = [run(1, mesh=mesh).programs["programs"] for mesh in (None, make_mesh(data=1))]
    timing = ("lower_seconds", "compile_seconds", "from_cache")
    for programs in texts:
        for report in programs.values():
            for name in timing:
                report.pop(name)
    assert texts[0] == texts[1]


def test_pinned_to_one_device_a_step_compiles_to_the_same_instructions(proofs: ModuleType):
    job = proofs.job("mlp")
    layout = Layout(make_mesh(data=1))
    options = train.Options(accumulate=2)
    pinned = lambda h: layout.objective(job["objective"])  # noqa: E731
    batch = {"x": jax.ShapeDtypeStruct((16, 64), jnp.float32)}
    batch["y"] = jax.ShapeDtypeStruct((16,), jnp.int32)
    init = train.make_init(job["model"], job["optimizer"], batch["x"], options)
    hparams = train.as_hparams(job["hparams"])
    state = jax.eval_shape(init, hparams, jax.random.key(0))

    def operations(objective: Any, wrap: Any) -> list[Any]:
        step = wrap(train.make_train_step(objective, job["optimizer"], options))
        module = read_module(hlo_text(jax.jit(step).lower(hparams, state, batch).compile()))
        # Names and scopes may tell them apart; what is computed may not.
        return sorted(
            (each.opcode, each.size, each.target) for each in module.instructions.values()
        )

    plain = operations(job["objective"], lambda step: step)
    lies = layout.of_state(state)
    assert operations(pinned, lambda step: layout.step(step, lies)) == plain


def test_evaluation_and_the_best_step_are_those_of_one_device():
    one, four = run(), run(mesh=make_mesh(data=2, fsdp=2))
    rows = [[row for row in r.history if row["split"] == "validation"] for r in (one, four)]
    assert [row["step"] for row in rows[0]] == [6, 12]
    for left, right in zip(*rows, strict=True):
        assert left.keys() == right.keys()
        np.testing.assert_allclose(left["loss"], right["loss"], rtol=1e-5)
        assert left["accuracy"] == right["accuracy"]
    np.testing.assert_allclose(one.summary["test_loss"], four.summary["test_loss"], rtol=1e-5)


def test_a_run_goes_on_on_another_mesh_from_the_very_state_that_was_saved(tmp_path: Path):
    saved = run(6, run_dir=tmp_path / "a", mesh=make_mesh(data=1, fsdp=4))
    assert not saved.state.params["hidden_0"]["kernel"].is_fully_replicated
    store = checkpoint.Store(tmp_path / "a" / "checkpoints")
    for mesh in (make_mesh(data=1, fsdp=2, tensor=2), make_mesh(data=1)):
        layout = Layout(mesh, distributed.MLP)
        like = layout.on_mesh(
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved.state)
        )
        found, _ = store.restore(6, like)
        same(found, saved.state)
        assert all(
            leaf.sharding.is_equivalent_to(spec.sharding, leaf.ndim)
            for leaf, spec in zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True)
        )
    further = run(12, run_dir=tmp_path / "a", resume=True, mesh=make_mesh(data=2))
    whole = run(12, mesh=make_mesh(data=1, fsdp=4))
    assert [row["step"] for row in further.history if row["split"] == "train"] == [*range(1, 13)]
    losses = [[row["loss"] for row in each.history] for each in (further, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_bad_step_is_skipped_on_a_mesh_as_on_one_device():
    x = X.copy()
    x[::40] = np.nan
    parts = data.Data(data.training({"x": x, "y": Y}, 16, seed=0))
    mesh = make_mesh(data=2, fsdp=2)
    one, four = (
        run(10, data=parts, nonfinite="skip", mesh=each, eval_every=10) for each in (None, mesh)
    )
    assert one.summary["refused_steps"] == four.summary["refused_steps"] > 0


def test_the_average_that_is_evaluated_lies_where_the_parameters_do():
    options = train.Options(ema=0.9, evaluate="ema")
    one, four = (run(options=options, mesh=m) for m in (None, make_mesh(data=1, fsdp=4)))
    np.testing.assert_allclose(one.summary["test_loss"], four.summary["test_loss"], rtol=1e-5)
    kernel = four.params["hidden_0"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size


def test_the_report_says_what_lies_where_and_what_is_exchanged(tmp_path: Path):
    run(2, run_dir=tmp_path / "a", mesh=make_mesh(data=1, fsdp=4))
    program = json.loads((tmp_path / "a" / "program.json").read_text())
    layout = program["layout"]
    assert (layout["mesh"], layout["devices"]) == ({"fsdp": 4}, 4)
    kernel = next(row for row in layout["parameters"] if row["path"] == "hidden_0/kernel")
    assert kernel == {
        "path": "hidden_0/kernel", "count": 1, "shape": [64, 64], "spec": ["fsdp", ""],
        "bytes_per_device": 64 * 64,
    }  # fmt: skip
    whole = 4 * (64 * 64 + 64 + 64 * 4 + 4)
    assert layout["state"]["params"] == {
        "bytes": whole, "bytes_per_device": whole - 3 * 64 * 64,
    }  # fmt: skip
    kinds = {row["kind"] for row in program["collectives"]["train_step"]}
    assert "all-gather" in kinds
    assert program["programs"]["train_step"]["not_donated"] == []
    page = (tmp_path / "a" / "report.html").read_text()
    assert "hidden_0/kernel" in page
    assert "all-gather" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": {"data": 3}}, "a batch of 16 does not split over data 3: give a multiple of 3"),
        (
            {"mesh": {"data": 4}, "options": train.Options(accumulate=8)},
            "does not split over data 4 × 8 micro-batches: give a multiple of 32",
        ),
        ({"mesh": {"data": 2, "sequence": 2}}, "an input that is no text does not split"),
    ],
)
def test_what_does_not_split_is_refused_before_anything_is_compiled(changes, message: str):
    with pytest.raises(MeshError, match=message):
        run(1, **changes | {"mesh": make_mesh(**changes["mesh"])})


def test_a_mesh_without_an_axis_for_batches_is_refused():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(MeshError, match="the mesh has axes x: call the one for batches 'data'"):
        Layout(mesh)


@pytest.mark.parametrize(
    ("name", "value"), [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)]
)
def test_random_numbers_that_depend_on_the_mesh_are_refused(name: str, value: Any):
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        with pytest.raises(MeshError, match="random numbers would depend on the mesh"):
            Layout(make_mesh(data=4))
        assert Layout(make_mesh(data=1)).is_plain
    finally:
        jax.config.update(name, before)
