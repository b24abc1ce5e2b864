"""A run that meets a NaN: it says so, saves nothing bad, and goes on where it was told to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit.errors import UserError

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")

MODEL = fk.nn.serial(hidden=fk.nn.dense(4), act=fk.nn.tanh, head=fk.nn.dense(1))
COUNT, BATCH, BAD = 256, 4, (37, 101)


def _data(bad: tuple[int, ...] = BAD) -> fk.data.Data:
    """Records in order, two of them with a NaN: in batches 9 and 25, which steps 10 and 26 read."""
    x = np.linspace(-1, 1, COUNT * 3, dtype=np.float32).reshape(COUNT, 3)
    y = x.sum(1, keepdims=True)
    x[list(bad), 1] = np.nan
    rows = fk.data.Pipeline({"x": x, "y": y}, fk.data.Sequential(COUNT, BATCH))
    return fk.data.Data(name="planted", train=rows, validation=None, test=None)


def _fit(nonfinite: str, **changes: Any) -> fk.FitResult:
    settings: dict[str, Any] = {
        "optimizer": optax.adam(1e-2),
        "data": _data(),
        "steps": 40,
        "checkpoint_every": 4,
        "eval_every": 4,
        "quiet": True,
        "nonfinite": nonfinite,
    }
    return fk.fit(MODEL, fk.train.regression(MODEL), **(settings | changes))


def _steps(folder: Path) -> list[int]:
    return fk.checkpoint.Store(folder / "checkpoints").steps()


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("form", ["chunk", "single"])
@pytest.mark.parametrize("policy", ["off", "raise"])
def test_a_nan_ends_the_run_names_the_step_and_leaves_only_good_checkpoints(
    tmp_path: Path, policy: str, form: str
):
    with pytest.raises(fk.train.NonFinite, match=r"^step 10: the loss is nan") as caught:
        _fit(policy, run_dir=tmp_path, form=form)
    assert caught.value.step == 10
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    # Record 37 is the second of its batch. Unguarded, the state has gone on: a replay tells.
    named = "from argument batch/x (row 1) came in non-finite"
    assert (named in str(caught.value)) == (policy == "raise")
    assert _steps(tmp_path)[-1] == 8
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert (failure["step"], failure["checkpoint"], failure["data_offset"]) == (10, 8, 0)
    assert _summary(tmp_path)["status"] == "diverged"
    rows = fk.report.read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert np.isfinite([row["loss"] for row in rows[:-1]]).all()
    assert np.isnan(rows[-1]["loss"])


def test_a_run_that_skips_goes_on_and_counts(tmp_path: Path):
    result = _fit("skip", run_dir=tmp_path)
    assert result.summary["refused_steps"] == 2
    assert result.summary["status"] == "finished"
    assert [row["step"] for row in result.history if row["refused"]] == [10, 26]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


def test_a_run_that_rolls_back_reads_on_behind_the_bad_batch(tmp_path: Path):
    result = _fit("rollback", run_dir=tmp_path, steps=16)
    assert result.summary["rollbacks"] == 1
    assert int(result.state.step) == 16
    assert [row["step"] for row in result.history] == list(range(1, 17))
    # By hand: 8 steps, then the 8 batches that follow the tenth.
    optimizer = optax.adam(1e-2)
    state = fk.train.init_state(MODEL, optimizer, _data().train.spec["x"])
    step = jax.jit(fk.train.make_train_step(fk.train.regression(MODEL), optimizer))
    for number in [*range(8), *range(10, 18)]:
        state, _ = step({}, state, _data().train(number))
    close = jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=1e-5), state.params, result.params)
    assert jax.tree.all(close)


def test_where_a_run_reads_after_going_back_is_part_of_its_checkpoints(tmp_path: Path):
    whole = _fit("rollback", run_dir=tmp_path / "whole", steps=16)
    _fit("rollback", run_dir=tmp_path / "parts", steps=13)
    parts = _fit("rollback", run_dir=tmp_path / "parts", steps=16, resume=True)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, whole.params, parts.params))


def test_a_run_goes_back_only_so_often(tmp_path: Path):
    with pytest.raises(fk.train.NonFinite, match=r"^step 24: the loss is nan"):
        # Step 10 reads batch 9; back at 8, its data are those of step 11; so batch 25 is step 24.
        _fit("rollback", run_dir=tmp_path, max_rollbacks=1)
    assert _fit("rollback", run_dir=tmp_path / "two", max_rollbacks=2).summary["rollbacks"] == 2


def test_a_number_of_returns_below_zero_is_none(tmp_path: Path):
    with pytest.raises(fk.train.NonFinite, match=r"^step 10: "):
        _fit("rollback", run_dir=tmp_path, max_rollbacks=-1)


def test_without_a_folder_there_is_nothing_to_go_back_to():
    with pytest.raises(UserError, match="rollback needs a run_dir"):
        _fit("rollback")


def test_parameters_that_overflow_are_never_saved(tmp_path: Path):
    """The update of step 4 makes them infinite; loss and gradients of that step are finite."""
    optimizer = optax.sgd(lambda count: jnp.where(count == 3, jnp.inf, 1e-3))
    with pytest.raises(fk.train.NonFinite, match=r"^step 4: an update is not finite"):
        _fit("raise", run_dir=tmp_path, optimizer=optimizer, data=_data(()))
    assert _steps(tmp_path) == []


def test_a_batch_of_padding_alone_is_no_failure():
    data = _data(())
    weight = np.ones(COUNT, np.float32)
    weight[8:12] = 0
    pipeline = fk.data.Pipeline(
        {**data.train.arrays, "weight": weight}, fk.data.Sequential(COUNT, BATCH)
    )
    padded = fk.data.Data(name="padded", train=pipeline, validation=None, test=None)
    assert _fit("off", data=padded).summary["status"] == "finished"
    assert _fit("skip", data=padded).summary["refused_steps"] == 0


def test_a_run_whose_parameters_overflow_goes_back_as_well(tmp_path: Path):
    optimizer = optax.sgd(lambda count: jnp.where(count == 7, jnp.inf, 1e-3))
    with pytest.raises(fk.train.NonFinite, match=r"^step 8: an update is not finite"):
        _fit(
            "rollback",
            run_dir=tmp_path,
            optimizer=optimizer,
            data=_data(()),
            steps=12,
            max_rollbacks=2,
        )
    assert _steps(tmp_path) == [4]


@pytest.mark.parametrize("checkpoint_every", [4, 100])
def test_time_spent_before_going_back_counts(tmp_path: Path, checkpoint_every: int):
    slept = []

    def sleep_once(progress: Any) -> None:
        if progress.step == 8 and not slept:
            slept.append(time.sleep(1.0))

    result = _fit(
        "rollback",
        run_dir=tmp_path,
        steps=12,
        hooks=[sleep_once],
        checkpoint_every=checkpoint_every,
    )
    assert result.summary["rollbacks"] == 1
    assert result.summary["seconds"] > 1.0


def test_a_failure_is_forgotten_once_the_run_has_come_past_it(tmp_path: Path):
    failure = tmp_path / "failure.json"
    with pytest.raises(fk.train.NonFinite):
        _fit("raise", run_dir=tmp_path)
    _fit("raise", run_dir=tmp_path, resume=True, data=_data(()), steps=9)
    assert json.loads(failure.read_text())["step"] == 10
    _fit("raise", run_dir=tmp_path, resume=True, data=_data(()), steps=12)
    assert not failure.exists()


def test_what_was_refused_before_a_run_was_resumed_counts(tmp_path: Path):
    first = _fit("skip", run_dir=tmp_path, steps=20)
    assert first.summary["refused_steps"] == 1
    assert _fit("skip", run_dir=tmp_path, steps=40, resume=True).summary["refused_steps"] == 2


def test_an_unknown_policy_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="nonfinite 'ignore' is not one of off, skip, raise, roll"):
        _fit("ignore")
