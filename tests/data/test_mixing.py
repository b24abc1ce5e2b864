"""Mixtures, curricula, filters, shards: pure functions of the step, every record in its turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit import data
from functorch_kit.data import (
    Among,
    ArraySource,
    Curriculum,
    DataError,
    Joined,
    Mixture,
    Sequential,
    Shard,
    Shuffled,
    Streamed,
    Transformed,
    shard,
)
from functorch_kit.data.order import reseeded

quick = settings(max_examples=40, deadline=None)
ORDERS: dict[str, Any] = {
    "shuffled": Shuffled(103, 12, seed=5),
    "drop_last": Shuffled(103, 12, seed=5, drop_last=True),
    "sequential": Sequential(103, 12),
    "mixture": Mixture((40, 63), (3.0, 1.0), 12, seed=5),
    "among": Among(np.arange(7, 90, 2), Shuffled(42, 12, seed=5), 103),
    "curriculum": Curriculum(
        ((0, Among(np.arange(30), Shuffled(30, 12), 103)), (4, Shuffled(103, 12, seed=1)))
    ),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_seeking_equals_replaying_at_every_step(order: Any):
    last = 20 if getattr(order, "steps", None) is None else order.steps
    replayed = order.rows(0, last)
    for start in range(last):
        for steps in (0, 1, 3):
            sought = order.rows(start, steps)
            for name, leaf in sought.items():
                np.testing.assert_array_equal(leaf[: last - start], replayed[name][start:][:steps])


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_global_order_is_the_same_on_any_number_of_processes(order: Any, processes: int):
    shards = [Shard(order, process, processes).rows(2, 5) for process in range(processes)]
    for name, whole in order.rows(2, 5).items():
        parts = [rows[name] for rows in shards]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("processes", [2, 4])
def test_shards_of_an_epoch_are_disjoint_and_hold_every_record(processes: int):
    order = Shuffled(96, 12, seed=2)
    parts = [Shard(order, p, processes).rows(8, 8)["index"].reshape(-1) for p in range(processes)]
    together = np.concatenate(parts)
    assert sorted(together.tolist()) == list(range(96))


@pytest.mark.parametrize("processes", [2, 4])
def test_a_sharded_evaluation_counts_every_record_once(processes: int):
    source = ArraySource({"x": np.arange(50.0, dtype=np.float32)})
    whole = Streamed(source, Sequential(50, 16))
    seen: list[float] = []
    for process in range(processes):
        part = shard(whole, process, processes)
        for step in range(part.steps or 0):
            batch = part(step)
            assert {n: leaf.shape for n, leaf in batch.items()} == {
                n: leaf.shape for n, leaf in part.spec.items()
            }
            seen += batch["x"][batch["weight"] > 0].tolist()
    assert sorted(seen) == list(range(50))


def test_a_shard_draws_for_its_records_what_the_whole_draws_for_them():
    def noisy(keys: Any, batch: Any) -> Any:
        import jax

        return {"x": jax.vmap(lambda key: jax.random.normal(key, ()))(keys)}

    inner = data.training({"x": np.arange(40)}, 8, seed=1)
    whole = Transformed(inner, noisy, seed=3)
    parts = [shard(whole, process, 4)(6)["x"] for process in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole(6)["x"])


@quick
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.data(),
    st.integers(0, 2**32),
    st.integers(1, 50),
)
def test_each_data_set_of_a_mixture_gives_its_share_and_each_record_in_its_turn(
    counts: list[int], draw: Any, seed: int, batch_size: int
):
    weights = draw.draw(st.lists(st.floats(0.01, 9), min_size=len(counts), max_size=len(counts)))
    order = Mixture(tuple(counts), tuple(weights), batch_size, seed)
    steps = -(-10_000 // batch_size)
    index = order.rows(0, steps)["index"].reshape(-1)[:10_000]
    ends = np.cumsum(counts)
    for k, count in enumerate(counts):
        mine = index[(index >= ends[k] - count) & (index < ends[k])]
        assert abs(len(mine) - 10_000 * weights[k] / sum(weights)) <= 1
        # However far the stream has come, no record is more than one turn ahead of another …
        times = np.bincount(mine - (ends[k] - count), minlength=count)
        if len(mine) >= count:
            assert times.max() - times.min() <= 2
    assert ((index >= 0) & (index < sum(counts))).all()


def test_an_epoch_of_each_data_set_is_exact_where_periods_end():
    """In a whole number of periods a data set of 2,500 records and share 1/4 has whole epochs."""
    order = Mixture((2500, 7500), (1, 3), 100, seed=9)
    for period in range(3):
        index = order.rows(period * 100, 100)["index"].reshape(-1)
        assert sorted(index.tolist()) == list(range(10_000))


def test_two_data_sets_of_a_mixture_are_not_shuffled_alike():
    order = Mixture((100_000, 100_000), (1, 1), 10_000, seed=0)
    index = order.rows(0, 1)["index"][0]
    first, second = (set((index[index // 100_000 == k] % 100_000).tolist()) for k in (0, 1))
    assert len(first) == len(second) == 5000
    assert len(first & second) < 400  # by chance one in twenty: 250


def test_sources_are_mixed_by_share_and_classes_that_differ_are_refused():
    one, two = (
        ArraySource({"x": np.full(n, float(n), np.float32), "y": np.arange(n) % 3}, f"of {n}")
        for n in (30, 60)
    )
    pipeline = data.mixed([one, two], [3, 1], batch_size=100, seed=2)
    x = np.concatenate([pipeline(step)["x"] for step in range(100)])
    assert (x == 30).sum() == 7500
    named = ArraySource(dict(two.arrays), "named", ("a", "b", "c"))
    with pytest.raises(DataError, match="named has other classes than of 30"):
        data.mixed([one, named], [1, 1], batch_size=4)
    x = two.arrays["x"].copy()
    x[7] = np.nan
    bad = data.mixed([one, ArraySource({**two.arrays, "x": x}, "bad")], [1, 1], batch_size=400)
    with pytest.raises(DataError, match="bad, record 7: x has a value that is not finite"):
        bad(0)
    y = two.arrays["y"].copy()
    y[7] = -1
    with pytest.raises(DataError, match="record 7: its class is -1"):
        data.mixed([one, ArraySource({"x": two.arrays["x"], "y": y})], [1, 1], batch_size=4)


def test_joined_sources_are_numbered_through():
    one, two = ({"x": np.arange(n, dtype=np.float32) + 100 * n} for n in (3, 5))
    joined = Joined(ArraySource(one), ArraySource(two))
    assert len(joined) == 8
    everything = np.concatenate([one["x"], two["x"]])
    index = np.array([7, 0, 3, 2, 4])
    np.testing.assert_array_equal(joined.batch(index)["x"], everything[index])
    with pytest.raises(DataError, match="are not like those of"):
        Joined(ArraySource(one), ArraySource({"x": np.zeros((3, 2), np.float32)}))


def test_drop_last_leaves_out_others_in_each_epoch():
    order = Shuffled(10, 4, seed=0, drop_last=True)
    assert order.steps_per_epoch == 2
    left: set[int] = set()
    for epoch in range(40):
        index = order.rows(2 * epoch, 2)["index"].reshape(-1)
        assert len(set(index.tolist())) == 8
        left |= set(range(10)) - set(index.tolist())
    assert left == set(range(10))


def test_a_curriculum_is_a_function_of_the_step_alone():
    easy = Among(np.arange(5), Shuffled(5, 4, seed=1), 20)
    order = Curriculum(((0, easy), (7, Shuffled(20, 4))))
    assert (order.rows(0, 7)["index"] < 5).all()
    np.testing.assert_array_equal(order.rows(7, 9)["index"], Shuffled(20, 4).rows(0, 9)["index"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixture((1, 2), (1.0,), 2), "give one for each"),
        (lambda: Mixture((1, 2), (1.0, 0.0), 2), "give numbers above 0"),
        (lambda: Mixture((1, 2), (1.0, float("nan")), 2), "give numbers above 0"),
        (lambda: Mixture((1, 2), (1.0, 1e-6), 2), "less than one record in 10000"),
        (lambda: Mixture((), (), 2), "mixture of 0 data sets"),
        (lambda: Curriculum(()), "give 0 first"),
        (lambda: Curriculum(((1, Shuffled(3, 2)),)), "give 0 first"),
        (lambda: Curriculum(((0, Shuffled(3, 2)), (5, Shuffled(3, 1)))), "give one size"),
        (lambda: Curriculum(((0, Sequential(3, 2)),)), "give endless orders"),
        (lambda: Among(np.arange(3), Shuffled(4, 2)), "make the order with as many"),
        (lambda: Shard(Shuffled(9, 4), 2, 2), "count from 0 to 1"),
        (lambda: Shard(Shuffled(9, 4), 0, 3), "3 processes must divide it"),
    ],
)
def test_orders_that_cannot_be_are_refused(make: Any, message: str):
    with pytest.raises(DataError, match=message):
        make()


@pytest.mark.parametrize("kind", ["shuffled", "mixture", "shard"])
def test_a_million_million_records_need_no_room(kind: str):
    import tracemalloc

    count = 10**12
    orders: dict[str, Any] = {
        "shuffled": Shuffled(count, 256),
        "mixture": Mixture((count, count), (1, 2), 256),
        "shard": Shard(Shuffled(count, 256), 3, 4),
    }
    order = orders[kind]
    order.rows(0, 1)
    tracemalloc.start()
    for step in range(0, 10**9, 10**8):
        order.rows(step, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_another_seed_is_another_stream_of_the_same_records(order: Any):
    source = ArraySource({"x": np.arange(103.0, dtype=np.float32)})
    pipeline = Streamed(source, order)
    one, same, other = (pipeline.seeded(seed)(1)["x"] for seed in (8, 8, 9))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any() != isinstance(order, Sequential)
    drawn = Transformed(pipeline, lambda keys, batch: batch, seed=3).seeded(8)
    assert drawn.seed == 8
    np.testing.assert_array_equal(drawn(1)["x"], one)
    assert Shard(order, 0, 2) != reseeded(Shard(order, 0, 2), 99) or isinstance(order, Sequential)


def test_what_reading_has_cost_is_no_part_of_what_data_are(tmp_path: Any):
    from functorch_kit.sweep.identity import content_digest

    np.save(tmp_path / "x.npy", np.zeros((20, 2), np.float32))
    sources = {"map": data.mapped(tmp_path), "arrays": ArraySource({"x": np.zeros((20, 2))})}
    for source in sources.values():
        for wrap in (lambda p: p, lambda p: Transformed(p, data.scaled(), random=False)):
            one, other = (wrap(Streamed(source, Shuffled(20, 4))) for _ in range(2))
            one(3)
            assert content_digest(one) == content_digest(other)
            assert content_digest(one) != content_digest(one.seeded(5))
    before = content_digest(Streamed(sources["map"], Shuffled(20, 4)))
    np.save(tmp_path / "x.npy", np.ones((20, 2), np.float32))
    assert content_digest(Streamed(data.mapped(tmp_path), Shuffled(20, 4))) != before
