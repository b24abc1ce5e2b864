from __future__ import annotations

import pytest

from functorch_kit.train import patience, trend


def _stops_at(stop, losses: list[float], name: str = "loss") -> int | None:
    rows: list[dict] = []
    for index, loss in enumerate(losses):
        rows.append({name: loss})
        if stop(rows):
            return index
    return None


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([3.0, 2.0, 1.0, 0.5], None),
        ([3.0, 1.0, 2.0, 2.0, 0.1], 3),
        ([3.0, 3.0, 3.0], 2),
        ([1.0, 2.0, 0.9, 2.0, 0.8, 2.0, 2.0], 6),
        ([float("nan"), 3.0, 2.0, 1.0], None),
        ([3.0, float("nan"), float("nan")], 2),
        ([float("nan"), float("nan"), 1.0], 1),
    ],
)
def test_two_evaluations_without_improvement_stop(losses, stops):
    assert _stops_at(patience(2), losses) == stops


def test_larger_may_be_better():
    stop = patience(2, metric="accuracy", mode="max")
    assert _stops_at(stop, [0.1, 0.5, 0.4, 0.5, 0.9], "accuracy") == 3


def test_an_improvement_must_be_as_large_as_was_asked():
    assert _stops_at(patience(2, min_change=0.5), [3.0, 2.8, 2.6, 1.0]) == 2
    assert _stops_at(patience(2), [3.0, 2.8, 2.6, 1.0]) is None


def test_it_remembers_nothing_so_a_resumed_run_stops_at_the_same_row():
    rows = [{"loss": loss} for loss in (3.0, 1.0, 2.0, 2.0)]
    stop = patience(2)
    assert not stop(rows[:3])
    assert stop(rows)
    assert not stop(rows[:3])
    assert not stop([])


def test_patience_of_no_evaluations_or_another_mode_is_refused():
    with pytest.raises(ValueError, match="give a number from 1 up"):
        patience(0)
    with pytest.raises(ValueError, match="mode 'lowest' is not"):
        patience(1, mode="lowest")


def _rows(losses: list[float]) -> list[dict[str, float]]:
    return [{"step": 10 * index, "loss": loss} for index, loss in enumerate(losses, start=1)]


def test_a_metric_that_wanders_about_its_best_is_on_a_plateau_and_not_diverging():
    rows = _rows([1.0, 0.5, 0.25, 0.26, 0.252, 0.249, 0.255, 0.251])
    assert trend(rows) == "plateau since step 30"
    assert trend(rows[:7]) is None


def test_a_metric_that_gets_worse_and_worse_is_diverging_once_half_the_gain_is_lost():
    rows = _rows([1.0, 0.2, 0.3, 0.35, 0.4, 0.5, 0.59])
    assert trend(rows) == "plateau since step 20"
    assert trend(_rows([1.0, 0.2, 0.3, 0.35, 0.4, 0.5, 0.61])) == "diverging since step 20"


def test_a_metric_that_shall_grow_is_read_the_other_way_round():
    rows = [{"step": i, "accuracy": 0.1 * min(i, 4)} for i in range(12)]
    assert trend(rows, metric="accuracy", mode="max") == "plateau since step 4"
