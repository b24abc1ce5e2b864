"""Each thing that can differ between two runs is found, and the first step of it is named."""

from typing import Any

import pytest

from functorch_kit.certify.evidence import Evidence, first_difference


def evidence(**changes: Any) -> Evidence:
    rows = [{"step": step, "split": "train", "loss": 1 / step} for step in (1, 2, 3, 4)]
    rows.insert(2, {"step": 2, "split": "validation", "loss": 0.5})
    traces = [(step, {"params/a": f"a{step}", "params/b": f"b{step}"}) for step in (2, 4)]
    return Evidence(rows, traces, {"best_step": "2"}, {})._replace(**changes)


def test_equal_runs_do_not_differ():
    assert first_difference(evidence(), evidence()) is None


def test_the_pauses_of_a_killed_part_are_compared_too():
    straight = evidence()
    twice = [straight.traces[0], *straight.traces]
    assert first_difference(straight, evidence(traces=twice)) is None
    killed = [(2, {"params/a": "a2", "params/b": "other"}), *straight.traces]
    found = first_difference(straight, evidence(traces=killed))
    assert found is not None
    assert (found.step, found.leaf, found.leaf_step) == (2, "params/b", 2)


def rows(change: str) -> list[dict[str, Any]]:
    found = [dict(row) for row in evidence().rows]
    if change == "value":
        found[3]["loss"] = 0.7
    elif change == "missing":
        del found[3]
    elif change == "twice":
        found.insert(4, found[3])
    elif change == "end":
        found.pop()
    return found


@pytest.mark.parametrize(
    ("change", "step", "what"),
    [
        ("value", 3, f"loss of the train row is {1 / 3}, and 0.7"),
        ("missing", 3, "a train row is missing"),
        ("twice", 3, "a train row is one too many"),
        ("end", 4, "a train row is missing"),
    ],
)
def test_a_row_that_differs_is_named_with_its_step(change: str, step: int, what: str):
    found = first_difference(evidence(), evidence(rows=rows(change)))
    assert found is not None
    assert (found.step, found.what, found.leaf) == (step, what, None)


def test_a_row_and_the_leaf_behind_it_are_told_together():
    traces = [evidence().traces[0], (4, {"params/a": "a4", "params/b": "other"})]
    found = first_difference(evidence(), evidence(rows=rows("value"), traces=traces))
    assert found is not None
    assert (found.step, found.leaf, found.leaf_step) == (3, "params/b", 4)


def test_what_only_the_end_shows_is_named():
    found = first_difference(evidence(), evidence(facts={"best_step": "4"}))
    assert found is not None
    assert (found.step, found.what) == (4, "best_step is 2, and 4")
