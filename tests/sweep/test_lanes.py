"""Lanes of a sweep against the same runs alone, in float64."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import config, sweep

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")


def solo(job: config.Config) -> Any:
    return config.build(job).fit(quiet=True)


def largest_difference(one: Any, other: Any) -> float:
    """Over all leaves, relative to the largest entry of each."""

    def of_leaf(a: Any, b: Any) -> float:
        if jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(a), initial=0), 1e-30))

    return max(map(of_leaf, jax.tree.leaves(one), jax.tree.leaves(other)))


def every_field() -> list[config.Config]:
    """Pairs of jobs that differ in every number that can be traced."""
    found = []
    for lane in range(3):
        job = config.Config(
            model=config.MLP(hidden=(8,), dropout=0.1 + 0.1 * lane),
            optimizer=config.AdamW(
                learning_rate=1e-3 * (1 + lane), b1=0.8 + 0.05 * lane, b2=0.95 + 0.02 * lane,
                weight_decay=0.01 * (1 + lane), eps=1e-7 * (1 + lane),
            ),
            schedule=config.Cosine(warmup_steps=5 + lane, final=0.1 + 0.1 * lane),
            seed=lane,
        )  # fmt: skip
        job.train.label_smoothing = 0.05 * (1 + lane)
        job.train.ema_decay = 0.9 + 0.02 * lane
        job.train.init_scale = 0.7 + 0.1 * lane
        job.train.clip_norm = 1.0 + lane
        job.train.precision = "float64"
        job.train.batch_size, job.train.steps, job.train.eval_every = 16, 200, 100
        found.append(config.from_dict(config.to_dict(job)))
    return found


def test_every_lane_is_its_solo_run_whatever_number_it_differs_in(x64):
    jobs = every_field()
    result = sweep.run(jobs, say=None)
    assert result.compiles == len(result.groups) == 1
    assert result.groups[0].how == "side by side"
    for job in result.jobs:
        assert job.result is not None
        alone = solo(jobs[job.number])
        assert largest_difference(alone.state, job.result.state) < 1e-10
        assert largest_difference(alone.params, job.result.params) < 1e-10
        assert job.summary["test_loss"] == pytest.approx(alone.summary["test_loss"], rel=1e-9)
        assert job.summary["best_step"] == alone.summary["best_step"]


@pytest.mark.soak
def test_lanes_with_batch_norm_are_their_solo_runs(x64, job):
    model = config.ResNet18(stem="cifar", width=1)
    jobs = [
        # In single steps: in a loop, a CPU is slow at convolutions.
        job(
            model=model,
            seed=seed,
            learning_rate=0.01 * (1 + seed),
            precision="float64",
            steps=4,
            form="single",
        )
        for seed in range(2)
    ]
    result = sweep.run(jobs, mode="lanes", say=None)
    for each in result.jobs:
        assert each.result is not None
        assert largest_difference(solo(jobs[each.number]).state, each.result.state) < 1e-10


def test_neither_the_order_of_lanes_nor_their_number_matters(x64, job, tmp_path: Path):
    jobs = [
        job(learning_rate=0.01 * (1 + lane), seed=lane, precision="float64") for lane in range(5)
    ]
    together = sweep.run(jobs, devices=1, say=None)
    turned = sweep.run(jobs[::-1], devices=1, say=None)
    [group] = together.groups
    chunked = sweep.run(jobs, memory=2 * group.lane_bytes, devices=1, say=None)
    assert chunked.groups[0].chunks > 1
    for lane in range(5):
        states = [
            result.jobs[number].result.state  # type: ignore[union-attr]
            for result, number in ((together, lane), (turned, 4 - lane), (chunked, lane))
        ]
        assert largest_difference(states[0], states[1]) < 1e-10
        assert largest_difference(states[0], states[2]) < 1e-10


def test_lanes_are_split_over_devices(x64, job):
    jobs = [
        job(learning_rate=0.01 * (1 + lane), seed=lane, precision="float64") for lane in range(6)
    ]
    one = sweep.run(jobs, devices=1, say=None)
    four = sweep.run(jobs, devices=4, say=None)
    assert four.groups[0].lanes == 8
    for here, there in zip(one.jobs, four.jobs, strict=True):
        assert here.result is not None
        assert there.result is not None
        assert largest_difference(here.result.state, there.result.state) < 1e-10


def test_jobs_that_differ_in_a_shape_are_compiled_apart(job):
    result = sweep.run([job(hidden=(8,)), job(hidden=(6,)), job(hidden=(8,), seed=1)], say=None)
    assert result.compiles == len(result.groups) == 2
    assert [group.jobs for group in result.groups] == [(0, 2), (1,)]


def test_a_lane_that_diverges_leaves_the_bits_of_the_others_alone(job, tmp_path: Path):
    def jobs(*rates: float) -> list[config.Config]:
        # A decay of 1e6 at each step: 12 of them overflow.
        return [job(optimizer=config.AdamW(rate, weight_decay=1.0)) for rate in rates]

    broken = sweep.run(jobs(0.01, 1e6, 0.02), tmp_path / "a", say=None)
    whole = sweep.run(jobs(0.01, 0.015, 0.02), tmp_path / "b", say=None)
    assert [each.status for each in broken.jobs] == ["finished", "diverged", "finished"]
    for lane in (0, 2):
        rows = [
            (result.jobs[lane].folder / "metrics.jsonl").read_bytes()  # type: ignore[operator]
            for result in (broken, whole)
        ]
        assert rows[0] == rows[1]
    assert (tmp_path / "a" / "1" / "failure.json").exists()


def test_a_lane_that_has_ended_early_stays_as_it_was(x64, job):
    patient = job(patience=1, learning_rate=1e-30, dropout=0.5, precision="float64", steps=40)
    quick = dataclasses.replace(patient, optimizer=config.SGD(0.01, momentum=0.9))
    result = sweep.run([patient, quick], say=None)
    alone = solo(patient)
    assert alone.summary["status"] == result.jobs[0].status == "stopped early"
    assert alone.summary["steps"] == result.jobs[0].summary["steps"] < 40
    assert result.jobs[0].result is not None
    assert largest_difference(alone.state, result.jobs[0].result.state) < 1e-10
