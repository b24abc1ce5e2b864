"""What a sweep is judged by, its curves over seeds, and what each setting did: by hand."""

import math
from typing import Any

import numpy as np
import pytest

from functorch_kit.report import sweep_curves, sweep_effects, sweep_jobs


def entry(number, value=None, status="finished", key="validation_loss", **settings) -> Any:
    summary = {} if value is None else {key: value}
    return {"number": number, "settings": settings, "status": status, "summary": summary}


def read(*jobs, metric="loss", mode="min", rows=None):
    histories = rows or {}
    fields = {"metric": metric, "mode": mode, "jobs": list(jobs)}
    return sweep_jobs.read_sweep(fields, lambda job: histories.get(job.number, []))


def order(sweep):
    return [job.number for job in sweep.ranked]


def history(*values, split="validation", first=10):
    return [{"step": first * i, "split": split, "loss": v} for i, v in enumerate(values, 1)]


def test_what_ended_well_is_ranked_and_ties_go_to_the_first():
    sweep = read(entry(3, 0.2), entry(1, 0.2), entry(0, 0.1, "diverged"), entry(2, 0.5),
                 entry(4, "NaN"), entry(5, math.inf), entry(6, 0.4, "stopped early"),
                 entry(7, 0.3, "out of time"), entry(8, 0.1, "interrupted"), entry(9),
                 entry(10, 0.35, "pruned"))  # fmt: skip
    assert order(sweep) == [1, 3, 7, 10, 6, 2]
    assert [job.number for job in sweep.jobs] == list(range(11))


def test_another_metric_and_another_mode_may_be_asked_for():
    jobs = [entry(0, 0.1), entry(1, 0.2)]
    jobs[0]["summary"]["test_accuracy"] = 0.3
    jobs[1]["summary"]["test_accuracy"] = 0.4
    assert order(read(*jobs)) == [0, 1]
    assert order(read(*jobs, mode="max")) == [1, 0]
    found = sweep_jobs.read_sweep({"jobs": jobs}, lambda job: [], "test_accuracy", "max")
    assert (order(found), found.metric.label) == ([1, 0], "test accuracy")
    assert sweep_jobs.metric_names(jobs) == ["loss", "test_accuracy", "validation_loss"]


def test_a_test_result_is_never_taken_for_a_validation_result():
    jobs = [entry(0, 0.9, key="test_accuracy"), entry(1, 0.8, key="test_accuracy")]
    rows = {0: history(0.5, split="train"), 1: history(0.25, split="train")}
    sweep = read(*jobs, metric="accuracy", mode="max", rows=rows)
    assert (order(sweep), sweep.metric.mode) == ([1, 0], "min")
    assert sweep.metric.is_fallback


def trained(*values, **more):
    return [{"step": n, "split": "train", "loss": v, **more} for n, v in enumerate(values)]


def test_without_a_validation_part_another_metric_may_be_asked_for():
    rows = {
        0: trained(0.5, 0.1, accuracy=0.75),
        1: [*trained(0.9, accuracy=0.875), *trained(0.8)],  # logged without it at the end
        2: [{"step": 1, "split": "validation", "accuracy": 1.0}],
    }
    fields = {"metric": "accuracy", "mode": "max", "jobs": [entry(n) for n in range(4)]}

    def by(metric):
        sweep = sweep_jobs.read_sweep(fields, lambda job: rows.get(job.number, []), metric)
        assert sweep.metric.is_fallback
        return order(sweep), sweep.metric.label

    assert by(None) == ([0, 1], "training loss")
    assert by("accuracy") == ([1, 0], "training accuracy")
    assert by("recall") == ([0, 1], "training loss")


@pytest.mark.parametrize("status", ["diverged", "interrupted", "waiting"])
def test_without_a_validation_part_only_jobs_that_came_to_an_end_count(status):
    rows = {0: trained(0.1), 1: trained(0.2)}
    assert order(read(entry(0, status=status), entry(1), rows=rows)) == [1]


def test_between_equal_values_the_smaller_loss_decides_then_the_number():
    jobs = [entry(n, 1.0, key="validation_accuracy") for n in range(4)]
    for job, loss in zip(jobs, (0.5, 0.25, 0.25, None), strict=True):
        if loss is not None:
            job["summary"]["validation_loss"] = loss
    assert order(read(*jobs, metric="accuracy", mode="max")) == [1, 2, 0, 3]
    rows = {n: trained(loss, accuracy=1.0) for n, loss in enumerate((0.5, 0.25))}
    fields = {"metric": "loss", "jobs": [entry(0), entry(1)]}
    sweep = sweep_jobs.read_sweep(fields, lambda job: rows[job.number], "accuracy", "max")
    assert order(sweep) == [1, 0]


@pytest.mark.parametrize(
    ("summary", "metric", "told"),
    [
        ({"validation_accuracy": 0.9, "test_accuracy": 0.8}, "accuracy", 0.9),
        ({"validation_loss": 0.3}, "loss", 0.3),
        ({"test_loss": 7.0}, "loss", 0.25),
        ({"test_accuracy": 0.8}, "recall", None),
    ],
)
def test_a_sweeper_is_told_of_validation_or_of_training_and_never_of_the_test(
    summary, metric, told
):
    rows = [*trained(0.5, 0.25), *history(5.0)]
    assert sweep_jobs.judgement(summary, rows, metric) == told
    assert sweep_jobs.judgement({}, [], metric) is None


def test_a_value_that_is_no_number_stays_one_for_the_sweeper():
    told = sweep_jobs.judgement({"validation_loss": "NaN"}, [], "loss")
    assert told is not None
    assert math.isnan(told)
    rows = [*trained(0.5, accuracy=0.75), *history(0.1)]
    assert sweep_jobs.trained_names(rows) == ["loss", "accuracy"]


def test_the_training_loss_that_counts_is_the_last_one():
    rows = {
        0: [*history(2.0, 0.5, split="train"), *history(0.1)],
        1: history(0.1, 0.6, split="train"),
    }
    assert order(read(entry(0), entry(1), entry(2), rows=rows)) == [0, 1]


def test_jobs_that_differ_in_seed_alone_are_a_group():
    jobs = [entry(n, 1.0 - n / 10, a=n // 2 if n < 4 else [1], seed=n % 2) for n in range(6)]
    groups = sweep_jobs.over_seeds(read(*jobs))
    assert [[job.number for job in group] for group in groups] == [[4, 5], [2, 3], [0, 1]]


def test_a_curve_is_the_mean_over_its_jobs_and_its_band_their_deviation():
    histories = [history(1.0, 2.0, 6.0), history(3.0, math.nan), history(8.0, 4.0)]
    curve = sweep_curves.mean_curve(histories, "validation", "loss")
    assert curve.steps.tolist() == [10, 20, 30]
    assert curve.mean.tolist() == [4.0, 3.0, 6.0]
    np.testing.assert_allclose(curve.spread, [math.sqrt(13), math.sqrt(2), math.nan])
    assert curve.jobs == 3


def test_a_curve_takes_the_rows_of_its_split_alone():
    rows = [*history(1.0, 2.0), *history(5.0, split="train")]
    assert sweep_curves.mean_curve([rows], "train", "loss").mean.tolist() == [5.0]
    assert sweep_curves.mean_curve([rows], "test", "loss").jobs == 0


def test_a_long_curve_is_thinned_to_the_means_of_its_stretches():
    histories = {0: history(*np.linspace(0.0, 1.0, 10_000).tolist())}
    html = sweep_curves.learning_curves(read(entry(0, 1.0)), histories)
    line = html.split('class="c0" points="')[1].split('"')[0].split()
    assert len(line) == 200
    assert line[0].endswith(",1100") or line[0].startswith("3,")


def test_groups_say_how_many_seeds_they_are_of():
    jobs = [entry(n, 0.1 * n, a=n // 3, seed=n % 3) for n in range(6)]
    jobs[5]["status"] = "diverged"
    histories = {n: history(1.0, 0.5) for n in range(5)}
    html = sweep_curves.learning_curves(read(*jobs), histories)
    assert "a=0</span><span>3 seeds</span><b>0.1000 ± 0.1</b>" in html
    assert "a=1</span><span>3 seeds, 2 with rows, 2 with a result</span><b>0.3500 ± 0.071" in html
    assert "differ in seed alone, 3 of them" in html


def test_only_curves_of_several_jobs_have_a_band():
    jobs = [entry(0, 0.1, a=0, seed=0), entry(1, 0.2, a=0, seed=1), entry(2, 0.3, a=1, seed=0)]
    histories = {0: history(1.0, 0.5), 1: history(2.0, 0.25), 2: history(1.0, 1.0)}
    html = sweep_curves.learning_curves(read(*jobs), histories)
    assert html.count("<polygon") == 1
    assert '<polygon class="band c0"' in html


def test_a_marginal_effect_is_over_all_other_settings():
    values = {(0.1, "relu"): 1.0, (0.1, "gelu"): 3.0, (0.2, "relu"): 5.0, (0.2, "gelu"): None}
    jobs = [entry(n, v, a=a, b=b) for n, ((a, b), v) in enumerate(values.items())]
    jobs[3]["status"] = "diverged"
    sweep = read(*jobs)
    low, high = sweep_effects.effects_of(sweep, "a")[0]
    assert (low.label, low.mean, low.best("min"), low.best("max")) == ("0.1", 2.0, 1.0, 3.0)
    assert low.spread == pytest.approx(math.sqrt(2))
    assert (high.label, high.values, high.spread, high.without) == ("0.2", (5.0,), None, 1)
    gelu, relu = sweep_effects.effects_of(sweep, "b")[0]
    assert (gelu.mean, gelu.without, relu.mean, relu.without) == (3.0, 1, 3.0, 0)
    waiting = read(*jobs, entry(4, None, "waiting", a=0.1, b="relu"))
    assert sweep_effects.effects_of(waiting, "a")[0][0] == low


def test_many_numbers_are_put_together_in_ranges_of_as_many_jobs():
    sweep = read(
        *(entry(n, float(n), a=n / 10, b=0) for n in range(80)), entry(80, 7.0, a=None, b=0)
    )
    effects, left = sweep_effects.effects_of(sweep, "a")
    assert [len(effect.values) for effect in effects] == [10] * 8 + [1]
    assert (effects[0].label, effects[0].mean, effects[-1].label) == ("0 to 0.9", 4.5, "null")
    assert left == ""


def test_of_many_names_the_best_are_shown_in_their_order():
    sweep = read(*(entry(n, float(n % 7), a=f"name {n}") for n in range(30)))
    effects, left = sweep_effects.effects_of(sweep, "a")
    assert len(effects) == 12
    assert left == "18 further values have a worse mean and are not shown."
    assert [effect.label for effect in effects][:4] == ["name 0", "name 1", "name 2", "name 7"]


def test_values_are_shown_in_the_order_of_their_size():
    settings = [[256, 128], [64], 10, 9, None, "b", "a"]
    effects, _ = sweep_effects.effects_of(
        read(*(entry(n, 1.0, a=a) for n, a in enumerate(settings))), "a"
    )
    assert [e.label for e in effects] == ["9", "10", "[64]", "[256,128]", "a", "b", "null"]
