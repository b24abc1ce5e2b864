"""Blocks come ahead of time, in any order, and are what they would be without that."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import jax
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import data
from functorch_kit.data import ArraySource, DataError, Feed, Shuffled, Streamed, delivery, diagnosed
from functorch_kit.data.rooms import Rooms

pytestmark = pytest.mark.usefixtures("compiled_once")

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = (np.arange(64) % 3).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Slow:
    """A source whose batches take a while, and which says who read what."""

    seconds: float
    decodes: bool = False
    readers: list[str] = dataclasses.field(default_factory=list)
    name: str = "slow"

    def __len__(self) -> int:
        return len(X)

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return ArraySource({"x": X, "y": Y}).spec

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(self.seconds * len(index) / 8)
        self.readers.append(threading.current_thread().name)
        return {"x": X[index], "y": Y[index]}


def _equal(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decodes", [False, True], ids=["read", "decoded"])
def test_blocks_asked_for_in_any_order_are_the_rows_of_the_pipeline(decodes: bool):
    pipeline = Streamed(Slow(0.002, decodes), Shuffled(64, 8, seed=1), classes=3)
    feed = Feed(pipeline, steps=3, threads=4)
    for number in (0, 1, 2, 5, 6, 6, 0, 1, 9, 8):
        _equal(feed(number), pipeline.rows(3 * number, 3))
    feed.close()


def test_threads_read_the_very_batches_that_one_reads():
    from concurrent.futures import ThreadPoolExecutor

    pipeline = Streamed(Slow(0.0, True), Shuffled(64, 8, seed=1), classes=3)
    with ThreadPoolExecutor(5) as pool:
        _equal(pipeline.rows_by(pool, 7, 2), pipeline.rows(7, 2))
        x = X.copy()
        x[pipeline.order.rows(7, 1)["index"][0, 5]] = np.nan
        source = ArraySource({"x": x, "y": Y})
        skipping = dataclasses.replace(pipeline, source=source, check="skip")
        _equal(skipping.rows_by(pool, 7, 1), skipping.rows(7, 1))
        assert float(skipping(7)["weight"].sum()) == 7


def test_reading_overlaps_with_what_the_caller_does():
    """While the caller works on a block, the next one is read; the benchmark measures how well."""
    source = Slow(0.01)
    feed = Feed(Streamed(source, Shuffled(64, 8)), steps=1, threads=1)
    feed(0)
    for number in range(1, 6):
        feed(number)
        end = time.monotonic() + 30
        while len(source.readers) < number + 2:  # the caller's work: it asks for nothing
            assert time.monotonic() < end, "the next block is not read ahead"
            time.sleep(0.001)
    assert feed.mode == "prefetch"


def test_decoding_goes_to_threads_where_they_are_faster_and_it_is_said():
    source = Slow(0.02, decodes=True)
    feed = Feed(Streamed(source, Shuffled(64, 8)), steps=2, threads=4)
    for number in range(7):
        feed(number)
    feed.close()
    assert feed.mode == "prefetch, 4 threads"
    assert "4 threads" in feed.reason
    assert {name.rpartition("_")[0] for name in source.readers[-4:]} == {"reading"}


@dataclasses.dataclass(frozen=True)
class Locked(Slow):
    """Decoding that several threads cannot do at once, as Python's own."""

    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        with self.lock:
            return super().batch(index)


def test_decoding_stays_on_one_thread_where_more_are_no_faster():
    feed = Feed(Streamed(Locked(0.02, decodes=True), Shuffled(64, 8)), steps=2, threads=4)
    for number in range(7):
        feed(number)
    feed.close()
    assert feed.mode == "prefetch"


@pytest.mark.parametrize("first", [0, 3])
def test_an_error_in_the_thread_is_raised_where_its_block_is_asked_for(first: int):
    labels = np.zeros(64, np.int32)
    order = Shuffled(64, 8, seed=0)
    labels[order.rows(first + 1, 1)["index"][0, 4]] = 7
    source = ArraySource({"x": np.zeros((64, 50_000), np.float32), "y": labels})
    feed = Feed(Streamed(source, order, classes=3), steps=1)
    feed(first)
    with pytest.raises(DataError, match="its class is 7"):
        feed(first + 1)
    feed(first)  # and what is sound can still be had


def test_waiting_counts_only_while_the_device_is_idle():
    feed = Feed(Streamed(Slow(0.2), Shuffled(64, 8)), steps=1)
    feed(0)
    feed(1, lambda: False)
    assert feed.waited_seconds == 0
    feed(2, lambda: True)
    assert feed.waited_seconds > 0.1
    began = time.perf_counter()
    feed(3, lambda: time.perf_counter() > began + 0.15)
    assert feed.waited_seconds < 0.17  # 0.05 of 0.2; other tests share the cores
    feed.close()


@pytest.fixture
def parts() -> data.Data:
    source = Slow(0.001)
    train = Streamed(source, Shuffled(64, 8, seed=1), classes=3)
    held_out = Streamed(source, data.Sequential(64, 16), classes=3)
    return data.Data(train, held_out, held_out, ("a", "b", "c"))


def _fitted(parts: data.Data, **options: Any) -> Any:
    model = fk.nn.dense(3)
    return fk.fit(
        model, fk.train.classification(model), optimizer=optax.adam(0.1), data=parts,
        quiet=True, **options,
    )  # fmt: skip


def test_a_run_on_a_streamed_source_is_the_run_on_arrays_and_says_how_it_was_fed(
    parts: data.Data, standard_promotion: None
):
    kept = parts._replace(train=data.training({"x": X, "y": Y}, 8, seed=1))
    streamed, resident = (_fitted(each, steps=40, eval_every=7) for each in (parts, kept))
    _equal(streamed.state.params, resident.state.params)
    assert streamed.programs["input"]["mode"].startswith(("prefetch", "inline"))
    assert resident.programs["input"]["mode"] == "resident"
    assert streamed.programs["input"]["records_per_second"] > 0


def test_a_run_that_pauses_and_goes_on_is_the_run_that_does_not(
    parts: data.Data, standard_promotion: None, tmp_path: Any
):
    whole = _fitted(parts, steps=30, run_dir=tmp_path / "whole")
    _fitted(parts, steps=13, run_dir=tmp_path / "parts")
    rest = _fitted(parts, steps=30, run_dir=tmp_path / "parts", resume=True)
    _equal(whole.state.params, rest.state.params)
    assert "Input: " in (tmp_path / "whole" / "report.html").read_text()


def test_a_bad_record_ends_a_run_by_its_name(standard_promotion: None):
    y = Y.copy()
    y[40] = -1
    source = ArraySource({"x": X, "y": y}, "points")
    streamed = Streamed(source, Shuffled(64, 8), classes=3)
    with pytest.raises(DataError, match="points, record 40: its class is -1"):
        _fitted(data.Data(streamed, class_names=("a", "b", "c")), steps=20)


@pytest.mark.parametrize(
    ("seconds", "decodes", "stage", "words"),
    [
        ({"order": 0.1, "read": 2.0, "transfer": 0.1}, True, "decode", "data.InProcesses"),
        ({"order": 0.1, "read": 2.0, "transfer": 0.1}, False, "read", "faster disk"),
        ({"read": 0.1, "transfer": 2.0}, False, "transfer", "send bytes"),
        ({"read": 0.1, "check": 2.0}, False, "check", "check='off'"),
    ],
)
def test_an_input_bound_run_is_told_which_stage_and_what_to_change(
    seconds: dict[str, float], decodes: bool, stage: str, words: str
):
    facts: dict[str, Any] = {
        "mode": "prefetch", "reason": "", "blocks": 9, "records": 1000, "seconds": seconds,
        "making_seconds": 2.5, "compute_seconds": 3.0, "decodes": decodes,
    }  # fmt: skip
    found = diagnosed(wait_seconds=1.0, **facts)
    assert (found.slowest_stage, found.is_input_bound) == (stage, True)
    assert (found.wait_share, found.records_per_second) == (0.25, 400.0)
    assert words in found.advice
    assert words in str(found)
    assert diagnosed(wait_seconds=0.1, **facts).advice == ""


def test_a_thread_reads_under_the_settings_of_its_caller(x64: None):
    source = ArraySource({"x": np.ones((64, 4000))})
    pipeline = Streamed(source, Shuffled(64, 8))
    feed = Feed(pipeline, steps=2)
    assert [feed(number)["x"].dtype for number in range(3)] == [np.float64] * 3
    held_out = data.evaluation({"x": np.ones((64, 4))}, 16)
    assert {batch["x"].dtype for batch in data.each_on_device(held_out)} == {np.dtype("float64")}


def test_a_block_that_somebody_has_is_not_written_over():
    source = ArraySource({"x": np.arange(4096.0, dtype=np.float32).repeat(64).reshape(4096, 64)})
    order = Shuffled(4096, 256, seed=3)
    feed = Feed(Streamed(source, order), steps=2)
    blocks = [feed(number) for number in range(12)]
    for number, block in enumerate(blocks):
        np.testing.assert_array_equal(block["x"][..., 0], order.rows(2 * number, 2)["index"])


def test_memory_is_used_again_only_when_nobody_has_it():
    rooms = Rooms()
    first = rooms.array((3, 4), np.float32)
    part = first[1:]
    address = first.ctypes.data
    del first
    assert rooms.array((3, 4), np.float32).ctypes.data != address  # a view of it is held
    del part
    again = [rooms.array((3, 4), np.float32) for _ in range(2)]
    assert address in [each.ctypes.data for each in again]
    assert all(each.ctypes.data % 64 == 0 for each in again)


def test_a_block_is_shared_out_over_the_devices_of_a_mesh():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    pipeline = Streamed(ArraySource({"x": X, "y": Y}), Shuffled(64, 8))
    block = Feed(pipeline, steps=2, put=data.sharded(mesh))(3)
    _equal(block, pipeline.rows(6, 2))
    assert {shard.data.shape for shard in block["x"].addressable_shards} == {(2, 2, 4)}


def test_reading_that_turns_slow_is_put_on_a_thread(monkeypatch: pytest.MonkeyPatch):
    feed = Feed(Streamed(Slow(0.02), Shuffled(64, 8)), steps=1, threads=1)
    monkeypatch.setattr(delivery, "_QUICK_SECONDS", 10.0)
    feed(0)
    feed(1)
    assert feed.mode == "inline"
    monkeypatch.setattr(delivery, "_QUICK_SECONDS", 1e-3)
    feed(2)
    assert feed.mode == "prefetch"


def test_worker_processes_are_named_and_no_threads_are_tried_on_them(
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("grain")
    inner = Streamed(Slow(0.002, decodes=True), Shuffled(64, 8))
    monkeypatch.setattr(data.InProcesses, "rows", lambda self, *asked: self.inner.rows(*asked))
    reader = data.Transformed(data.InProcesses(inner, 3), data.scaled(), random=False)
    feed = Feed(reader, steps=2, threads=4)
    for number in range(7):
        _equal(feed(number), inner.rows(2 * number, 2))
    feed.close()
    assert feed.mode == "prefetch, 3 worker processes"
    found = feed.diagnosis(wait_seconds=1.0, compute_seconds=1.0)
    assert (found.slowest_stage, "more worker processes" in found.advice) == ("decode", True)
