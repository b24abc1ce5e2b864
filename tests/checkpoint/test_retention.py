"""Which steps stay, and that nothing else goes."""

import math
import os
from pathlib import Path

import hypothesis
import jax.numpy as jnp
import pytest
from hypothesis import strategies

from functorch_kit.checkpoint import CheckpointError, Keep, Store
from functorch_kit.checkpoint.retention import Entry, best_first, kept

STATE = {"x": jnp.arange(4.0)}


def entries(*scores: float | None, pinned: tuple[int, ...] = ()) -> dict[int, Entry]:
    """Steps 1, 2 …, saved in this order."""
    return {
        step: Entry(Path(str(step)), step, score, step in pinned)
        for step, score in enumerate(scores, 1)
    }


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (Keep(latest=1, best=0), {8}),
        (Keep(latest=3, best=0), {6, 7, 8}),
        (Keep(latest=1, best=1), {4, 8}),
        (Keep(latest=1, best=3), {1, 4, 7, 8}),
        (Keep(latest=1, best=0, every=3), {3, 6, 8}),
        (Keep(latest=2, best=2, every=5), {4, 5, 7, 8}),
        (Keep(latest=100, best=0), {1, 2, 3, 4, 5, 6, 7, 8}),
    ],
)
def test_the_latest_the_best_and_the_multiples_stay(keep: Keep, stay: set[int]):
    known = entries(0.5, 0.9, None, 0.1, 0.8, math.nan, 0.2, None)
    assert kept(known, keep) == stay


def test_a_pinned_step_stays():
    assert kept(entries(None, None, None, pinned=(1,)), Keep(latest=1)) == {1, 3}


def test_of_equal_scores_the_first_is_the_best_and_a_number_beats_none():
    assert best_first(entries(0.5, 0.2, 0.2, None, math.nan, math.nan)) == [2, 3, 1, 6, 5]


@pytest.mark.parametrize("wrong", [{"latest": 0}, {"best": -1}, {"every": 0}])
def test_a_policy_that_cannot_be_kept_is_refused(wrong: dict[str, int]):
    with pytest.raises(CheckpointError, match=f"keep.{next(iter(wrong))} is"):
        Keep(**wrong)


@hypothesis.given(
    scores=strategies.lists(strategies.none() | strategies.floats(), min_size=1, max_size=12),
    latest=strategies.integers(1, 4),
    best=strategies.integers(0, 4),
    every=strategies.none() | strategies.integers(1, 5),
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_removing_step_by_step_or_at_the_end_keeps_the_same(
    scores: list[float | None], latest: int, best: int, every: int | None
):
    """What was removed early would not have been kept later: scores never change."""
    keep, known = Keep(latest, best, every), entries(*scores)
    so_far: dict[int, Entry] = {}
    for step, entry in known.items():
        so_far[step] = entry
        so_far = {step: so_far[step] for step in kept(so_far, keep)}
    scored_nan = any(score is not None and math.isnan(score) for score in scores)
    if not scored_nan:  # of those, the last one is the best: then an earlier one has gone before
        assert set(so_far) == kept(known, keep)
    assert max(known) in so_far


def test_a_store_keeps_what_its_policy_says(tmp_path: Path):
    with Store(tmp_path, Keep(latest=2, best=1, every=40)) as store:
        for step, score in [(10, 0.3), (20, None), (30, 0.2), (40, 0.9), (50, None), (60, None)]:
            store.save(step, STATE, score=score)
            store.wait()
            assert store.latest() == step
        assert store.best() == 30
        assert store.steps() == [30, 40, 50, 60]
        store.save(70, STATE, score=0.1, pinned=True)
        store.save(80, STATE, score=0.05)
        store.save(90, STATE)
        store.save(95, STATE)
    assert store.steps() == [40, 70, 80, 90, 95]
    assert sorted(os.listdir(tmp_path)) == [".lock", "40", "70", "80", "90", "95"]


def test_another_policy_takes_hold_at_the_next_save(tmp_path: Path):
    with Store(tmp_path, Keep(latest=5)) as store:
        for step in range(5):
            store.save(step, STATE)
    with Store(tmp_path, Keep(latest=2)) as store:
        assert store.steps() == [0, 1, 2, 3, 4]
        store.save(9, STATE)
    assert store.steps() == [4, 9]


def test_going_back_makes_an_earlier_step_the_latest(tmp_path: Path):
    with Store(tmp_path, Keep(latest=1)) as store:
        store.save(50, STATE, score=1.0)
        store.save(100, STATE)
        store.save(60, STATE)
    assert store.latest() == 60
    assert store.steps() == [50, 60]


def test_a_step_saved_again_is_replaced(tmp_path: Path):
    with Store(tmp_path) as store:
        store.save(5, {"x": jnp.zeros(2)}, score=0.5)
        store.save(5, {"x": jnp.ones(2)}, meta={"again": True})
    found, meta = store.restore(5, {"x": jnp.zeros(2)})
    assert found["x"].tolist() == [1, 1]
    assert meta == {"again": True}
    assert (store.latest(), store.best()) == (5, None)
    assert sorted(os.listdir(tmp_path)) == [".lock", "5"]
