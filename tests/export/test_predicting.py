"""Rows of predictions: classes with their probabilities, next tokens, numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import export
from functorch_kit.data import Characters, Inputs
from functorch_kit.export import ArtifactError, Record
from functorch_kit.types import Model

pytest.importorskip("flatbuffers")


def _same() -> Model:
    """What comes out is what goes in."""
    return Model(lambda key, x: ({}, ()), lambda params, state, x, **_: (x, ()))


def _artifact(folder: Path, model: Model, x: Any, **facts: Any) -> export.Artifact:
    export.save(folder / "artifact", model, {}, (), x, **facts)
    return export.load(folder / "artifact")


def _records(*rows: Any, dtype: Any = np.float32) -> list[Record]:
    return [Record(str(number), np.array(row, dtype)) for number, row in enumerate(rows)]


def test_a_class_is_named_with_its_probability(tmp_path: Path):
    artifact = _artifact(
        tmp_path, _same(), np.ones((1, 2), np.float32), task="classification", classes=("a", "b")
    )
    assert export.header(artifact) == ["record", "prediction", "probability"]
    rows = list(export.predictions(artifact, _records([0, 0], [0, np.log(3)], [800, 0])))
    assert rows == [["0", "a", "0.5"], ["1", "b", "0.75"], ["2", "a", "1"]]


def test_numbers_are_rows_of_numbers_in_the_order_of_the_records(tmp_path: Path):
    artifact = _artifact(tmp_path, _same(), np.ones((1, 2), np.float32), task="regression")
    assert export.header(artifact) == ["record", "y0", "y1"]
    records = _records(*([n, -n] for n in range(7)))
    for size in (1, 3, 64):  # the last batch is filled up, and nobody sees it
        rows = list(export.predictions(artifact, iter(records), batch_size=size))
        assert rows == [[str(n), str(n), str(-n)] for n in range(7)]
    assert list(export.predictions(artifact, [])) == []


def test_an_artifact_for_one_size_is_given_batches_of_it(tmp_path: Path):
    artifact = _artifact(tmp_path, _same(), np.ones((4, 1), np.float32), batch=4)
    rows = list(export.predictions(artifact, _records(*([n] for n in range(6)))))
    assert [row[1] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert export.header(artifact) == ["record", "prediction"]


def test_of_a_text_the_token_after_its_last_one_is_told(tmp_path: Path):
    """A model for which the next letter of the alphabet is the likeliest, padding or not."""
    model = Model(
        lambda key, x: ({}, ()),
        lambda params, state, x, **_: (9.0 * jax.nn.one_hot((x + 1) % 3, 3, dtype=jnp.float32), ()),
    )
    artifact = _artifact(
        tmp_path, model, np.zeros((1, 4), np.int32), task="language model",
        vocabulary=Characters("abc"), records=Inputs("text", (4,), "int32"),
    )  # fmt: skip
    inputs = artifact.manifest.records
    records = [
        export.text_record(text, text, inputs, artifact.vocabulary) for text in ("ab", "c", "abcab")
    ]
    rows = list(export.predictions(artifact, records))
    assert [row[:2] for row in rows] == [["ab", "c"], ["c", "a"], ["abcab", "c"]]


def test_several_outputs_are_for_python(tmp_path: Path):
    model = Model(lambda key, x: ({}, ()), lambda params, state, x, **_: ({"a": x, "b": x}, ()))
    artifact = _artifact(tmp_path, model, np.ones((1, 2), np.float32))
    with pytest.raises(ArtifactError, match="several inputs or outputs: call it from Python"):
        list(export.predictions(artifact, _records([1, 2])))
