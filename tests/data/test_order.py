from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.data import Order, Sequential, Shuffled, permuted

counts = st.integers(1, 400)
seeds = st.integers(-(2**63), 2**64)
quick = settings(max_examples=60, deadline=None)


@quick
@given(counts, st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(count: int, key: int):
    image = permuted(np.arange(count, dtype=np.uint64), count, np.uint64(key))
    assert sorted(image.tolist()) == list(range(count))


@quick
@given(counts, seeds, st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_holds_every_record_exactly_once(count, seed, batch_size, epoch):
    order = Shuffled(count, min(batch_size, count), seed)
    first = epoch * count // order.batch_size
    steps = -(-2 * count // order.batch_size) + 1
    stream = order.rows(first, steps)["index"].reshape(-1)
    start = epoch * count - first * order.batch_size
    assert sorted(stream[start : start + count].tolist()) == list(range(count))


@quick
@given(counts, seeds, st.integers(1, 40), st.integers(0, 10**6), st.integers(0, 6))
def test_rows_of_many_steps_are_the_rows_of_each(count, seed, batch_size, start, steps):
    for order in (Shuffled(count, batch_size, seed), Sequential(count, batch_size)):
        many = order.rows(start, steps)
        for offset in range(steps):
            one = order.rows(start + offset, 1)
            for name in many:
                assert (many[name][offset] == one[name][0]).all()
                assert many[name].dtype == one[name].dtype


@quick
@given(st.integers(2, 10**15), seeds, st.integers(0, 10**6))
def test_any_step_of_a_huge_set_is_found_at_once_and_in_range(count, seed, step):
    index = Shuffled(count, 16, seed).rows(step, 2)["index"]
    assert ((index >= 0) & (index < count)).all()


def test_a_million_million_records_are_drawn_without_a_repeat_and_over_the_whole_range():
    count = 10**12
    index = Shuffled(count, 1000, 3).rows(10**8, 20)["index"].reshape(-1)
    assert len(set(index.tolist())) == index.size
    tenths = np.bincount(index * 10 // count, minlength=10)
    expected = index.size / 10
    assert ((tenths - expected) ** 2 / expected).sum() < 30  # 9 degrees: above 30 once in 2300


def test_seeds_and_epochs_have_orders_of_their_own():
    count = 100
    streams = {seed: Shuffled(count, count, seed).rows(0, 5)["index"] for seed in range(20)}
    epochs = [tuple(row) for stream in streams.values() for row in stream.tolist()]
    assert len(set(epochs)) == len(epochs)
    # Two independent permutations agree in one place on average, in 8 or more once in 100,000.
    agreements = [
        sum(a == b for a, b in zip(one, other, strict=True))
        for one, other in itertools.combinations(epochs[:40], 2)
    ]
    assert np.mean(agreements) == pytest.approx(1, abs=0.2)
    assert max(agreements) < 10


def _chi_square(cells: np.ndarray) -> float:
    """How far counts are from equal, in standard deviations of chi-square."""
    expected, freedom = cells.sum() / cells.size, cells.size - 1
    return float((((cells - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_permutation_of_a_few_records_is_as_likely(count):
    epochs = math.factorial(count) * 400
    stream = Shuffled(count, count, 1).rows(0, epochs)["index"]
    _, cells = np.unique(stream @ count ** np.arange(count), return_counts=True)
    assert cells.size == math.factorial(count)
    assert _chi_square(cells) < 4


@pytest.mark.parametrize("count", [7, 30, 97])
def test_every_record_is_as_likely_in_every_place_and_beside_every_other(count):
    epochs = 1_000_000 // count
    stream = Shuffled(count, count, 1).rows(0, epochs)["index"]
    for place in (0, count // 2, count - 1):
        assert _chi_square(np.bincount(stream[:, place], minlength=count)) < 4.5
    for a, b in ((0, 1), (0, count - 1), (count // 2, count // 2 + 1)):
        pairs = np.bincount(stream[:, a] * count + stream[:, b], minlength=count**2)
        pairs = pairs.reshape(count, count)[~np.eye(count, dtype=bool)]
        assert _chi_square(pairs) < 4.5


def test_an_order_is_the_same_tomorrow():
    """A changed order changes every run and every resume: change this only on purpose."""
    assert Shuffled(10, 5, seed=0).rows(0, 3)["index"].tolist() == FIRST_ROWS


FIRST_ROWS = [[8, 3, 9, 1, 7], [0, 6, 2, 5, 4], [7, 3, 5, 2, 8]]


def test_sequential_holds_every_record_once_and_padding_has_weight_zero():
    for count, batch_size in itertools.product((1, 2, 5, 8, 9), (1, 2, 4, 8, 20)):
        order = Sequential(count, batch_size)
        rows = order.rows(0, order.steps)
        real = rows["weight"] == 1
        assert rows["index"][real].tolist() == list(range(count))
        assert set(rows["weight"][~real].tolist()) <= {0.0}
        assert rows["weight"].shape == (order.steps, batch_size)
        assert (rows["index"] < count).all()


def test_both_orders_are_orders():
    assert isinstance(Shuffled(3, 2), Order)
    assert isinstance(Sequential(3, 2), Order)
