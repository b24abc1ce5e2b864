"""A step that failed is taken again from what a run leaves behind, and its layer is named."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import certify, nn, train
from functorch_kit.errors import UserError
from functorch_kit.program import Finding
from tests.program.planted import stack

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")

RECORDS, BAD = 48, 17


def job(planted: bool = True, **changes: Any) -> dict[str, Any]:
    """Arguments of ``fit``: one record, in a batch of its own step, is negative under a root."""
    x = np.random.default_rng(0).uniform(1, 2, (RECORDS, 3)).astype(np.float32)
    if planted:
        x[BAD] = -x[BAD]
    model = nn.serial(mix=nn.lambda_(lambda x: 1 * x), root=nn.lambda_(jnp.sqrt), head=nn.dense(1))
    found: dict[str, Any] = {
        "model": model,
        "objective": train.regression(model),
        "optimizer": optax.adam(0.01),
        "data": fk.data.arrays(x, x.sum(1, keepdims=True), batch_size=4, validation=0, test=0),
        "steps": 12,
        "seed": 3,
    }
    return found | changes


def finding(replayed: certify.Replay) -> Finding:
    """The finding, which there has to be."""
    assert replayed.finding is not None
    return replayed.finding


def step_of(record: int, pipeline: Any) -> int:
    """The step, from 1 up, whose batch holds a record."""
    rows = (pipeline.order.rows(step, 1)["index"][0] for step in range(100))
    return 1 + next(step for step, row in enumerate(rows) if record in row)


def run(tmp_path: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """A run that fails, and its arguments."""
    arguments = job(**changes)
    folder = tmp_path / "run"
    with pytest.raises(train.NonFinite):
        fk.fit(**arguments, run_dir=folder, checkpoint_every=2, log_every=1, quiet=True)
    return folder, arguments


@pytest.mark.smoke
@pytest.mark.parametrize("nonfinite", ["off", "raise"])
@pytest.mark.parametrize("form", ["chunk", "single"])
def test_the_step_that_failed_is_found_and_its_layer_named(tmp_path, nonfinite: str, form: str):
    folder, arguments = run(tmp_path, nonfinite=nonfinite, form=form)
    failure = json.loads((folder / "failure.json").read_text())
    replayed = certify.replay(folder, job=arguments)
    expected = step_of(BAD, arguments["data"].train)
    assert (replayed.step, replayed.failed_step, replayed.form) == (expected, expected, form)
    assert replayed.checkpoint == failure["checkpoint"]
    assert replayed.error == failure["error"]
    assert not replayed.is_finite
    assert (finding(replayed).path, finding(replayed).primitive) == ("root", "sqrt")
    assert finding(replayed).direction == "forward"
    assert "first non-finite value: root, forward: sqrt" in str(replayed)
    assert json.loads(json.dumps(replayed.to_dict()))["finding"]["path"] == "root"


def test_a_step_is_taken_again_to_the_bit(tmp_path):
    arguments = job(planted=False)
    result = fk.fit(**arguments, run_dir=tmp_path, checkpoint_every=5, log_every=1, quiet=True)
    for step in (1, 5, 6, 12):
        replayed = certify.replay(tmp_path, step=step, job=arguments)
        (row,) = [r for r in result.history if r["split"] == "train" and r["step"] == step]
        assert replayed.metrics["loss"] == row["loss"]
        assert (replayed.finding, replayed.is_finite, replayed.error) == (None, True, None)
    assert "every value of the step is finite" in str(replayed)


def test_a_loss_that_turns_bad_a_step_after_the_gradient_is_traced_to_the_gradient(tmp_path):
    # Finite loss, NaN gradient: the loss shows it one step later, from parameters gone bad.
    model = stack("custom_vjp")
    x = np.linspace(-1, 1, 160, dtype=np.float32).reshape(40, 4)
    arguments: dict[str, Any] = {
        "model": model,
        "objective": train.regression(model),
        "optimizer": optax.sgd(0.1),
        "data": fk.data.arrays(x, x, batch_size=4, validation=0, test=0),
        "steps": 9,
    }
    (tmp_path / "failure.json").write_text(json.dumps({"step": 6, "error": "step 6: nan"}))
    replayed = certify.replay(tmp_path, job=arguments)
    assert (replayed.step, replayed.failed_step, replayed.checkpoint) == (1, 6, None)
    assert (finding(replayed).path, finding(replayed).direction) == ("blocks/7/planted", "backward")
    assert str(replayed).startswith("step 6 failed, and started from a bad state")
    asked = certify.replay(tmp_path, job=arguments, step=6)
    assert finding(asked).direction == "argument"
    assert finding(asked).path.startswith("state/params/blocks")


def test_data_that_a_rollback_left_out_are_left_out_again(tmp_path):
    arguments = job()
    bad = step_of(BAD, arguments["data"].train)
    failure = {"step": bad - 1, "checkpoint": None, "data_offset": 1, "error": "nan"}
    (tmp_path / "failure.json").write_text(json.dumps(failure))
    replayed = certify.replay(tmp_path, job=arguments)
    assert (replayed.step, finding(replayed).path) == (bad - 1, "root")


def test_a_step_of_ones_own_is_taken_apart_without_a_run():
    def train_step(hparams, state, batch):
        with jax.named_scope("ratio"):
            loss = jnp.sum(batch["x"] / state)
        return state - hparams["learning_rate"] * loss, {"loss": loss}

    given = ({"learning_rate": 0.1}, jnp.float32(0), {"x": jnp.ones(2)})
    found = certify.replay_step(train_step, *given)
    assert found is not None
    assert (found.path, found.primitive, found.reached) == ("ratio", "div", "metrics/loss")
    assert certify.replay_step(train_step, given[0], jnp.float32(1), given[2]) is None


@pytest.mark.parametrize(
    ("failure", "step", "said"),
    [
        (None, None, "has no failure.json: no step failed; give step=<1 to 12>"),
        (None, 0, "step is 0: give a step of the run, from 1 to 12"),
        (None, 13, "step is 13: give a step of the run, from 1 to 12"),
        ("{", None, "failure.json' cannot be read"),
        ("[]", None, "failure.json' holds no JSON object"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(tmp_path, failure, step, said: str):
    if failure is not None:
        (tmp_path / "failure.json").write_text(failure)
    with pytest.raises(UserError) as refused:
        certify.replay(tmp_path, step=step, job=job())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="does not exist: give the folder of a run"):
        certify.replay(tmp_path / "nothing", job=job())


def test_steps_behind_one_that_was_skipped_are_taken_again_to_the_bit(tmp_path):
    arguments = job(nonfinite="skip")
    result = fk.fit(**arguments, run_dir=tmp_path, checkpoint_every=100, log_every=1, quiet=True)
    skipped = step_of(BAD, arguments["data"].train)
    assert result.summary["refused_steps"] == 1
    assert skipped < 12
    replayed = certify.replay(tmp_path, step=12, job=arguments)
    (row,) = [r for r in result.history if r["split"] == "train" and r["step"] == 12]
    assert replayed.metrics["loss"] == row["loss"]
    assert replayed.is_finite
    assert finding(certify.replay(tmp_path, step=skipped, job=arguments)).path == "root"
