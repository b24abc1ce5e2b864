"""F8 and F9: poisoned records are named; a killed or stopped worker costs time, and no record."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from functorch_kit import data, nn, train
from tests.data.test_sources import POISONED, Poisoned

ROOT = Path(__file__).parents[2]


def read(fault: str, patience: float) -> tuple[dict[str, Any], str]:
    pytest.importorskip("grain")
    script = str(Path(__file__).parent / "reading.py")
    finished = subprocess.run(
        [sys.executable, script, fault, str(patience)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1]), finished.stderr


@pytest.mark.parametrize(
    "fault",
    [
        "kill",
        pytest.param("stop", marks=pytest.mark.soak),
        pytest.param("kill_all", marks=pytest.mark.soak),
        pytest.param("none", marks=pytest.mark.soak),
    ],
)
def test_a_lost_worker_is_recovered_from_and_no_record_is_lost_or_comes_twice(
    fault: str, table: Any
):
    tried = {"kill": "killed", "stop": "stopped", "kill_all": "both killed", "none": "left alone"}
    with table.row("F9", f"a worker process that reads data is {tried[fault]}") as row:
        facts, said = read(fault, 6.0)
        row.count = 1
        row.result = f"no record lost or twice; the longest wait {facts['longest']:.1f} s"
    assert facts["same"]
    assert facts["records"] == 480
    assert facts["longest"] < 30
    assert facts["alive"] == 0
    if fault == "none":
        assert (facts["failures"], said.count("data workers")) == (0, 0)
    else:
        assert facts["failures"] >= 1
        assert "its rows are made here" in said


@pytest.mark.soak
def test_a_poisoned_record_is_named_through_the_worker_that_met_it(table: Any):
    with table.row("F8", "a poisoned record, met by a worker process") as row:
        facts, _ = read("poison", 20.0)
        row.count, row.result = 1, "refused by its number"
    assert facts["same"]
    assert 0 < facts["records"] <= 160  # it comes in the step after these
    assert "it is poisoned" in facts["said"]
    assert facts["said"].startswith("numbers, record ")
    assert facts["failures"] == 0


@pytest.mark.soak
def test_a_record_that_a_worker_skips_is_counted_here(table: Any):
    with table.row("F8", "a poisoned record, skipped by a worker process") as row:
        facts, _ = read("skip", 20.0)
        row.count, row.result = 1, "counted; every other record came once"
    assert facts["same"]
    assert facts["records"] == 480
    assert facts["skipped"] == [facts["poisoned"]]


@pytest.mark.soak
def test_poisoned_records_of_every_kind_are_named_or_skipped_in_every_batch(table: Any):
    kinds = ", ".join(POISONED)
    with table.row("F8", f"one record among 20 with a wrong {kinds}; 50 orders") as row:
        for kind, seed in itertools.product(POISONED, range(50)):
            source = data.items(Poisoned(kind))
            made: dict[str, Any] = {"batch_size": 4, "validation": 0, "test": 0, "seed": seed}
            refusing = data.from_source(source, **made).train
            rows = refusing.order.rows(0, 10)["index"]
            (met,) = np.nonzero((rows == 7).any(axis=1))[0][:1]
            _ = [refusing(step) for step in range(met)]
            with pytest.raises(data.RecordError, match="Poisoned, record 7: "):
                refusing(int(met))
            skipping = data.from_source(source, check="skip", **made).train
            batches = [skipping(step) for step in range(10)]
            weights = np.stack([batch["weight"] for batch in batches])
            np.testing.assert_array_equal(weights == 0, rows == 7)
            labels = np.stack([batch["y"] for batch in batches])
            np.testing.assert_array_equal(labels[rows != 7], rows[rows != 7] % 2)
            assert skipping.skipped.keys() == {7}
            row.count += 2
        row.result = "refused by its number, or skipped and counted; no label changed"


def test_checks_cost_the_program_nothing(standard_promotion: None):
    """They are made on the host: on, off or absent, the compiled step is the same text."""
    source = data.ArraySource({"x": np.ones((32, 4), np.float32), "y": np.zeros(32, np.int32)})
    model, sgd = nn.dense(2), optax.sgd(0.1)
    texts: set[str] = set()
    for check in ("refuse", "off"):
        pipeline = data.Streamed(source, data.Shuffled(32, 8), check, 2)
        state = train.init_state(model, sgd, pipeline.spec["x"])
        step = train.make_train_step(train.classification(model), sgd)
        lowered = jax.jit(
            lambda state, row, step=step, p=pipeline: step({}, state, p.batch({}, row))
        ).lower(state, pipeline.row_spec)
        texts.add(lowered.as_text())
    assert len(texts) == 1


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1])
def test_a_label_that_passes_unchecked_is_never_clamped(label: int):
    """With checks off as well: the loss is NaN, where a clamped label would train silently."""
    y = np.array([0, 1, label], np.int32)
    source = data.ArraySource({"x": np.ones((3, 3), np.float32), "y": y})
    batch = jax.device_put(data.Streamed(source, data.Sequential(3, 3), "off", 3)(0))
    assert batch["y"].tolist() == y.tolist()
    outcome = train.classification(nn.identity)({}, (), batch, key=None, train=False)
    assert np.isnan(float(outcome.loss_sum))
