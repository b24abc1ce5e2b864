"""From a run to an artifact, and from an artifact to predictions, on the command line."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import export, safetensors, train
from functorch_kit.config import MLP, Config, GPTNano, Table, Text, Train, build, load_servable

pytest.importorskip("flatbuffers")


def _fitted(config: Config) -> Path:
    with jax.numpy_dtype_promotion("standard"):
        build(config).fit()
    return Path(config.run_dir or "")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small network on the digits."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return _fitted(Config(MLP((16,)), train=Train(steps=60), run_dir=str(folder), quiet=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose columns are far from zero; the table lies beside it."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    years, share = random.integers(1950, 2020, 60), random.normal(size=60)
    rows = [f"{y},{s:.4f},{'ab'[int(y > 1985)]}" for y, s in zip(years, share, strict=True)]
    (folder / "t.csv").write_text("\n".join(["year,share,kind", *rows]) + "\n")
    data = Table(path=str(folder / "t.csv"))
    config = Config(MLP((8,)), data, train=Train(steps=80, batch_size=16, eval_every=40))
    config.run_dir, config.quiet = str(folder / "run"), True
    config.optimizer.learning_rate = 0.02
    return _fitted(config)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text that is gone."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("abc" * 400)
    model, data = GPTNano(layers=1, heads=1, width=16), Text(str(folder / "text.txt"), context=8)
    config = Config(model, data, train=Train(steps=60, batch_size=8, eval_every=60))
    config.run_dir, config.quiet = str(folder / "run"), True
    config.optimizer.learning_rate = 0.01
    run = _fitted(config)
    (folder / "text.txt").unlink()
    return run


@pytest.fixture
def standard() -> Iterator[None]:
    """As scripts have it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _rows(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(printed)))


def test_digits_are_predicted_as_the_run_evaluates_them(script, here, digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    ended = script("export.py", "run=run", "out=artifact", "gradients=1")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("stablehlo: float32(batch, 8, 8, 1) -> float32(batch, 10), ")
    assert ended.last_line == "artifact: artifact"
    test = build(Config(MLP((16,)))).data.test.arrays
    np.save(tmp_path / "x.npy", test["x"])
    asked = here("predict.py", "artifact=artifact", "input=x.npy", "out=rows.csv", "batch_size=100")
    assert (asked.code, asked.err) == (0, "")
    rows = _rows(asked.out)
    assert rows == _rows((tmp_path / "rows.csv").read_text())
    assert len(rows) == len(test["y"])
    accuracy = np.mean(
        [row["prediction"] == str(y) for row, y in zip(rows, test["y"], strict=True)]
    )
    summary = json.loads((digits / "summary.json").read_text())
    assert accuracy == pytest.approx(summary["test_accuracy"], abs=1e-6)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)
    found = load_servable(digits)
    y, _ = jax.jit(found.model.apply)(found.params, found.model_state, test["x"])
    np.testing.assert_allclose(export.load("artifact")(test["x"]), y, rtol=1e-6, atol=1e-6)
    assert (
        "is there already"
        in here("predict.py", "artifact=artifact", "input=x.npy", "out=rows.csv").complaint
    )


def test_an_image_file_is_predicted(here, standard, digits, tmp_path):
    image = pytest.importorskip("PIL.Image")
    shutil.copytree(digits, tmp_path / "run")
    assert here("export.py", "run=run", "out=artifact", "quiet=true").out == "artifact: artifact\n"
    test = build(Config(MLP((16,)))).data.test.arrays
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = np.round(test["x"][number, ..., 0] * 255).astype(np.uint8)
        image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    np.save(tmp_path / "x.npy", test["x"][:3])
    rows = _rows(here("predict.py", "artifact=artifact", "input=images").out)
    expected = _rows(here("predict.py", "artifact=artifact", "input=x.npy").out)
    assert [row["record"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=0.02)


def test_columns_of_a_table_go_in_as_they_stand_in_the_file(here, standard, table, tmp_path):
    shutil.copytree(table, tmp_path / "run")
    shutil.copy(table.parent / "t.csv", tmp_path / "t.csv")
    assert here("export.py", "run=run", "out=artifact").code == 0
    records = export.read("artifact").records
    assert records.columns == ("year", "share")
    assert records.mean[0] == pytest.approx(1985, abs=10)
    rows = _rows(here("predict.py", "artifact=artifact", "input=t.csv").out)
    kinds = [row["kind"] for row in _rows((tmp_path / "t.csv").read_text())]
    assert np.mean([row["prediction"] == kind for row, kind in zip(rows, kinds, strict=True)]) > 0.9
    # Column by column the same as what the run trained on.
    made = build(Config(MLP((8,)), Table(path=str(tmp_path / "t.csv")), train=Train(batch_size=16)))
    raw = np.loadtxt(tmp_path / "t.csv", delimiter=",", skiprows=1, usecols=(0, 1))
    found = np.asarray(made.data.inputs.prepared(jax.numpy.asarray(raw, np.float32)))
    trained = np.concatenate([part.arrays["x"] for part in made.data[:3]])
    order = np.lexsort(found.T), np.lexsort(trained.T)
    np.testing.assert_allclose(found[order[0]], trained[order[1]], atol=2e-6)


def test_a_text_goes_on_with_the_likeliest_token(here, standard, text, tmp_path):
    shutil.copytree(text, tmp_path / "run")
    assert here("export.py", "run=run", "out=artifact").code == 0
    (row,) = _rows(here("predict.py", "artifact=artifact", "text=abcab").out)
    assert (row["record"], row["prediction"]) == ("1", "c")
    assert float(row["probability"]) > 0.5
    (tmp_path / "t.txt").write_text("abcabcabcabca\nbc\n")
    rows = _rows(here("predict.py", "artifact=artifact", "input=t.txt").out)
    assert [row["prediction"] for row in rows] == ["b", "a"]


def test_parameters_alone_are_a_safetensors_file(here, standard, digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    ended = here("export.py", "run=run", "out=weights", "format=safetensors")
    assert ended.code == 0, ended.err
    found = load_servable(digits)
    arrays = safetensors.read(tmp_path / "weights" / "params.safetensors")
    np.testing.assert_array_equal(arrays["params/head/kernel"], found.params["head"]["kernel"])
    said = here("predict.py", "artifact=weights", "input=x.npy").complaint
    assert "is of format safetensors, which is not run here" in said


def test_an_average_is_what_leaves(tmp_path, standard):
    config = Config(MLP((4,)), train=Train(steps=3, ema_decay=0.5), quiet=True)
    config.run_dir = str(tmp_path / "run")
    made = build(config)
    result = made.fit()
    found = load_servable(tmp_path / "run")
    expected = train.evaluation_params(result.state, made.options)
    np.testing.assert_allclose(
        found.params["head"]["kernel"], expected["head"]["kernel"], rtol=1e-6
    )
    assert (found.params["head"]["kernel"] != result.state.params["head"]["kernel"]).any()


BAD: list[Any] = [
    ("export.py", ["out=a"], "run is missing: give run=<folder of a run>"),
    ("export.py", ["run=nope"], "out is missing: give out=<new folder>"),
    ("export.py", ["run=nope", "out=a"], "run folder 'nope' does not exist: give the folder of a"),
    ("export.py", ["run=a", "out=a", "format=onyx"], "format is 'onyx': choose stablehlo, onnx or"),
    ("export.py", ["run=a", "out=a", "gradients=3"], "gradients is 3: give a whole number from 0"),
    ("export.py", ["run=a", "out=a", "days=181"], "days is 181: give a whole number from 1 to 180"),
    ("export.py", ["run=a", "out=a", "names=hugging_face"], "names=hugging_face is for format=saf"),
    ("export.py", ["rum=a"], "rum is not a setting: did you mean run?"),
    ("predict.py", [], "artifact is missing: give artifact=<folder>"),
    ("predict.py", ["artifact=a"], "input is missing: give input=<file or folder>, or text='…'"),
    ("predict.py", ["artifact=a", "input=b", "text=c"], "input is missing: give input=<file or"),
    (
        "predict.py",
        ["artifact=nope", "input=a.npy"],
        "artifact 'nope' does not exist: give the fol",
    ),
    ("predict.py", ["artifact=.", "input=a.npy"], "'.' is no artifact: it has no manifest.json"),
    ("predict.py", ["artifact=a", "imput=b"], "imput is not a setting: did you mean input?"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), BAD)
def test_what_cannot_be_is_refused_in_one_line(here, tmp_path, name, arguments, expected):
    assert expected in here(name, *arguments).complaint
    assert list(tmp_path.iterdir()) == []


def test_without_jax2onnx_it_says_where_to_get_it(here, standard, digits, tmp_path):
    import importlib.util

    if importlib.util.find_spec("jax2onnx") is not None:
        pytest.skip("jax2onnx is installed here")
    shutil.copytree(digits, tmp_path / "run")
    arguments = ("export.py", "run=run", "out=graph", "format=onnx")
    assert "pip install jax2onnx onnxruntime" in here(*arguments).complaint
    assert (
        "which cannot be started: No such file"
        in here(*arguments, "onnx_python=no/such/python").complaint
    )
    assert not (tmp_path / "graph").exists()
