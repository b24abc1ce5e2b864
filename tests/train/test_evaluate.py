from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import data, nn
from functorch_kit.program import ProgramMismatch
from functorch_kit.train import Evaluator, classification, predict, regression

RANDOM = np.random.default_rng(0)
LABELS = (np.arange(13) % 4).astype(np.int32)
ARRAYS = {
    "x": RANDOM.normal(size=(13, 3)).astype(np.float32),
    "y": LABELS,
}
MODEL = nn.dense(4)
PARAMS = {
    "kernel": jnp.asarray(RANDOM.normal(size=(3, 4)), jnp.float32),
    "bias": jnp.zeros(4),
}


@pytest.mark.parametrize("batch_size", [1, 5, 12, 13, 20])
def test_every_record_counts_once_for_every_batch_size(batch_size):
    pipeline = data.evaluation(ARRAYS, batch_size)
    objective = classification(MODEL)
    found = Evaluator(objective, pipeline, {}, PARAMS, ())(pipeline, {}, PARAMS, ())

    logits = ARRAYS["x"].astype(np.float64) @ np.asarray(PARAMS["kernel"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found["loss"] == pytest.approx(-log_p[np.arange(13), ARRAYS["y"]].mean(), rel=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == ARRAYS["y"]).mean(), rel=1e-12)
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (LABELS, logits.argmax(1)), 1)
    np.testing.assert_array_equal(found["confusion"], confusion)


def test_one_program_evaluates_several_sets_and_new_parameters():
    two = [data.evaluation({k: v[part] for k, v in ARRAYS.items()}, 4)
           for part in (slice(0, 6), slice(6, 13))]  # fmt: skip
    evaluate = Evaluator(classification(MODEL), two[0], {}, PARAMS, ())
    one, other = (evaluate(pipeline, {}, PARAMS, ()) for pipeline in two)
    assert one["confusion"].sum() == 6
    assert other["confusion"].sum() == 7
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    assert evaluate(two[0], {}, zeros, ())["loss"] == pytest.approx(np.log(4), rel=1e-6)


def test_a_set_of_another_shape_is_refused_and_the_leaf_is_named():
    evaluate = Evaluator(classification(MODEL), data.evaluation(ARRAYS, 4), {}, PARAMS, ())
    with pytest.raises(ProgramMismatch, match="batch"):
        evaluate(data.evaluation(ARRAYS, 5), {}, PARAMS, ())


def test_the_last_result_is_a_plain_float():
    pipeline = data.evaluation({"x": ARRAYS["x"], "y": ARRAYS["x"]}, 4)
    found = Evaluator(regression(nn.identity), pipeline, {}, {}, ())(pipeline, {}, {}, ())
    assert found == {"loss": 0.0, "absolute_error": 0.0}
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("batch_size", [4, 13, 20])
def test_predictions_stand_in_the_order_of_the_records(batch_size):
    y = predict(MODEL, PARAMS, (), data.evaluation(ARRAYS, batch_size))
    np.testing.assert_allclose(y, ARRAYS["x"] @ np.asarray(PARAMS["kernel"]), rtol=1e-4, atol=1e-6)


def test_predictions_are_traced_once_for_all_batches():
    traces = []

    def apply(params, model_state, x, *, key=None, train=False):
        traces.append((x.shape, train))
        return MODEL.apply(params, model_state, x)

    predict(MODEL._replace(apply=apply), PARAMS, (), data.evaluation(ARRAYS, 4))
    assert traces == [((4, 3), False)]


def test_a_batch_of_another_shape_is_refused_where_predictions_are_made():
    pipeline = data.evaluation(ARRAYS, 4)

    class Ragged:
        spec, steps, order = pipeline.spec, pipeline.steps, pipeline.order

        def __call__(self, step):
            return {"x": pipeline(step)["x"][: 4 if step < 3 else 1]}

    with pytest.raises(ProgramMismatch, match=r"predict: x is float32\[1,3\], compiled for"):
        predict(MODEL, PARAMS, (), Ragged())
