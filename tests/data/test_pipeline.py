from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from functorch_kit.data import DataError, Pipeline, Sequential, Shuffled, evaluation, training

ARRAYS = {
    "x": np.arange(26, dtype=np.float32).reshape(13, 2),
    "y": np.arange(13, dtype=np.int32),
}
ORDERS = {"shuffled": Shuffled(13, 4, seed=2), "sequential": Sequential(13, 4)}


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_batch_inside_a_program_is_the_batch_on_the_host(order, resident, maybe_jit):
    pipeline = Pipeline(ARRAYS, order, resident)
    constant = jax.device_put(pipeline.constant())
    batch = maybe_jit(pipeline.batch)
    rows = pipeline.rows(2, 3)
    for offset in range(3):
        row = jax.device_put({name: leaf[offset] for name, leaf in rows.items()})
        inside, outside = batch(constant, row), pipeline(2 + offset)
        assert set(inside) == set(outside)
        for name, values in outside.items():
            np.testing.assert_array_equal(inside[name], values)
            assert inside[name].dtype == values.dtype


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_specs_are_those_of_what_comes(order, resident):
    pipeline = Pipeline(ARRAYS, order, resident)
    for spec, value in (
        (pipeline.spec, pipeline(1)),
        (pipeline.row_spec, {name: leaf[0] for name, leaf in pipeline.rows(1, 1).items()}),
    ):
        assert {name: (leaf.shape, leaf.dtype) for name, leaf in spec.items()} == {
            name: (leaf.shape, leaf.dtype) for name, leaf in value.items()
        }


def test_a_resident_pipeline_sends_only_record_numbers():
    pipeline = Pipeline(ARRAYS, ORDERS["shuffled"], resident=True)
    assert set(pipeline.rows(0, 1)) == {"index"}
    assert set(pipeline.constant()) == {"x", "y"}
    streamed = Pipeline(ARRAYS, ORDERS["shuffled"], resident=False)
    assert streamed.constant() == {}


def test_x_and_y_stay_together():
    for batch in map(training(ARRAYS, batch_size=5, seed=0), range(9)):
        assert (batch["x"][:, 0] == 2 * batch["y"]).all()


def test_an_epoch_of_training_batches_holds_every_record_once():
    pipeline = training(ARRAYS, batch_size=13, seed=0)
    assert sorted(pipeline(3)["y"].tolist()) == list(range(13))
    assert pipeline.steps is None
    assert training(ARRAYS, batch_size=5, seed=0).steps_per_epoch == 3


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("shape", [(13,), (13, 2)], ids=["record", "token"])
def test_evaluation_keeps_the_weights_that_records_have(resident, shape):
    own = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    pipeline = Pipeline({**ARRAYS, "weight": own}, Sequential(13, 4), resident)
    weights = np.concatenate([pipeline(step)["weight"] for step in range(4)])
    np.testing.assert_array_equal(weights[:13], own)
    assert not weights[13:].any()
    assert (pipeline.spec["weight"].shape, pipeline.spec["weight"].dtype) == (
        pipeline(3)["weight"].shape,
        pipeline(3)["weight"].dtype,
    )
    row = {name: leaf[0] for name, leaf in pipeline.rows(3, 1).items()}
    inside = pipeline.batch(jax.device_put(pipeline.constant()), jax.device_put(row))
    np.testing.assert_array_equal(inside["weight"], pipeline(3)["weight"])


@pytest.mark.parametrize("batch_size", [1, 4, 13, 20])
def test_evaluation_batches_hold_every_record_once_by_weight(batch_size):
    pipeline = evaluation(ARRAYS, batch_size)
    assert pipeline.steps == -(-13 // batch_size)
    batches = [pipeline(step) for step in range(pipeline.steps or 0)]
    seen = [y for b in batches for y, w in zip(b["y"], b["weight"], strict=True) if w]
    assert seen == list(range(13))


@pytest.mark.parametrize("batch_size", [0, -1, 14])
def test_a_batch_that_the_records_do_not_fill_is_refused(batch_size):
    with pytest.raises(DataError, match=rf"batch_size is {batch_size}, .* from 1 to 13"):
        training(ARRAYS, batch_size, seed=0)


def test_an_evaluation_batch_of_no_records_is_refused():
    with pytest.raises(DataError, match="batch_size is 0"):
        evaluation(ARRAYS, 0)


@pytest.mark.parametrize(
    "arrays",
    [{"x": np.zeros(3), "y": np.zeros(2)}, {"x": np.zeros((0, 2))}],
    ids=["lengths", "none"],
)
def test_arrays_of_several_lengths_or_none_are_refused(arrays):
    with pytest.raises(DataError, match=re.escape("arrays must have one length, above 0")):
        evaluation(arrays)
