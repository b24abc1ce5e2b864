"""A sweep over arguments of ``fit``: any model, any optimizer, without a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import sweep
from functorch_kit.errors import UserError
from functorch_kit.sweep.asked import asked

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
DATA = fk.data.arrays(X, X @ np.ones((3, 1), np.float32), batch_size=8)
MODEL = fk.nn.serial(hidden=fk.nn.dense(4), act=fk.nn.tanh, head=fk.nn.dense(1))
OBJECTIVE = fk.train.regression(MODEL)


def _adam(hparams: Any) -> Any:
    return optax.adam(hparams["learning_rate"])


def _job(rate: float = 0.01, seed: int = 0, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": MODEL,
        "objective": OBJECTIVE,
        "optimizer": _adam,
        "data": DATA,
        "steps": 20,
        "hparams": {"learning_rate": rate},
        "seed": seed,
    }
    return settings | changes


def _shuffled(seed: int) -> fk.data.Data:
    return DATA._replace(train=DATA.train.seeded(seed))


def test_every_lane_is_what_fit_makes_of_the_same_arguments():
    jobs = [_job(rate, seed) for rate in (0.003, 0.03) for seed in (0, 1)]
    jobs.append(_job(0.01, 2, data=_shuffled(7)))
    result = sweep.run(jobs, say=None)
    assert (result.compiles, len(result.groups), result.groups[0].how) == (1, 1, "side by side")
    for job, arguments in zip(result.jobs, jobs, strict=True):
        alone = fk.fit(**arguments, quiet=True)
        assert job.result is not None
        pairs = zip(jax.tree.leaves(alone.params), jax.tree.leaves(job.result.params), strict=True)
        assert all(np.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)
        assert job.summary["validation_loss"] == pytest.approx(
            alone.summary["validation_loss"], rel=1e-4
        )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 30},
        {"optimizer": lambda h: optax.sgd(h["learning_rate"])},
        {"hparams": {"learning_rate": 0.01, "decay": 0.1}},
        {"options": fk.train.Options(accumulate=2)},
        {"data": fk.data.arrays(X, X @ np.ones((3, 1), np.float32), batch_size=16)},
        {"data": DATA._replace(validation=DATA.test)},
        {"nonfinite": "raise"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_jobs_that_differ_in_more_than_numbers_share_no_program(change: dict[str, Any]):
    assert asked(_job(**change)).key != asked(_job()).key
    assert asked(_job(seed=3, data=_shuffled(3))).key == asked(_job()).key


def test_a_sweep_of_arguments_is_known_again_and_not_run_twice(tmp_path: Path):
    jobs = [_job(rate, seed) for rate in (0.003, 0.03) for seed in (0, 1)]
    first = sweep.run(jobs, tmp_path, say=None)
    assert [job.status for job in first.jobs] == ["finished"] * 4
    again = sweep.run([*jobs, _job(0.003, 0, data=_shuffled(1))], tmp_path, say=None)
    assert [job.result is None for job in again.jobs] == [True] * 4 + [False]
    assert again.compiles == 1
    table = json.loads((tmp_path / "sweep.json").read_text())
    assert table["jobs"][3]["settings"]["learning_rate"] == 0.03
    assert (table["metric"], table["mode"]) == ("loss", "min")
    assert (tmp_path / "0" / "report.html").exists()
    assert (tmp_path / "sweep.html").exists()


def test_a_run_folder_of_such_a_sweep_goes_on_with_fit(tmp_path: Path):
    sweep.run([_job(seed=seed) for seed in range(2)], tmp_path, say=None)
    whole = fk.fit(**_job(seed=1, steps=40), quiet=True)
    parts = fk.fit(**_job(seed=1, steps=40), run_dir=tmp_path / "1", resume=True, quiet=True)
    assert int(parts.state.step) == 40
    pairs = zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True)
    assert all(np.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in pairs)


def test_hooks_are_called_in_every_lane():
    seen: list[int] = []
    hooks = (lambda progress: seen.append(progress.step),)
    jobs = [_job(seed=seed, hooks=hooks, eval_every=10) for seed in range(3)]
    assert sweep.run(jobs, say=None).groups[0].how == "side by side"
    assert sorted(seen) == [10] * 3 + [20] * 3


def test_steps_that_may_be_skipped_run_one_by_one_and_it_says_why():
    told: list[str] = []
    sweep.run([_job(seed=seed, nonfinite="skip") for seed in range(2)], say=told.append)
    assert "2 one by one (nonfinite=skip: a lane cannot go back alone)" in told[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_dir": "a"}, "run_dir in a job of a sweep: the sweep gives it; leave it out"),
        ({"learning_rate": 1}, "learning_rate in a job of a sweep: fit has no such argument"),
    ],
)
def test_arguments_that_are_not_a_jobs_are_refused_by_name(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        sweep.run([_job(**change)], say=None)


def test_a_job_without_a_model_is_refused():
    job = _job()
    del job["model"]
    with pytest.raises(UserError, match="a job of a sweep has no model: give it, as for fit"):
        sweep.run([job], say=None)
