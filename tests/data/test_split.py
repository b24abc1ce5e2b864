from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.data import DataError, stratified_split

fractions = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)).filter(lambda f: sum(f) < 0.99)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), fractions, st.integers(0, 9))
def test_parts_are_disjoint_and_whole_and_have_the_share_of_every_class(sizes, fractions, seed):
    validation, test = fractions
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = stratified_split(labels, validation=validation, test=test, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, (1 - validation - test, validation, test), strict=True):
        assert abs(len(part) - len(labels) * fraction) <= 1 + 1e-9
        assert (np.diff(part) > 0).all()
        for label, size in enumerate(sizes):
            assert abs((labels[part] == label).sum() - size * fraction) < 2


def test_proportions_are_exact_where_the_classes_divide():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 40))
    parts = stratified_split(labels, validation=0.1, test=0.2)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[28] * 5, [4] * 5, [8] * 5]


def test_a_seed_fixes_the_split_and_another_is_another():
    labels = np.zeros(100, int)
    one, same, other = (
        stratified_split(labels, validation=0.2, test=0.2, seed=seed)[2].tolist()
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def test_the_parts_do_not_depend_on_how_the_file_was_sorted():
    """A split by position would put the last class in the test part."""
    parts = stratified_split(np.arange(300) // 100, validation=0.1, test=0.2)
    assert [np.bincount(part // 100).tolist() for part in parts] == [[70] * 3, [10] * 3, [20] * 3]


@pytest.mark.parametrize(
    ("validation", "test"),
    [(-0.1, 0.2), (0.1, -0.2), (0.5, 0.5), (0.0, 1.0), (float("nan"), 0.1), (0.1, float("nan"))],
)
def test_fractions_that_leave_nothing_are_refused(validation, test):
    message = re.escape(f"validation {validation} and test {test}")
    with pytest.raises(DataError, match=message):
        stratified_split(np.zeros(10, int), validation=validation, test=test)
