"""A model that leaves as a program computes what it computed, without the code that made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import export, nn, safetensors
from functorch_kit.data import Characters, Inputs
from functorch_kit.export import ArtifactError, Leaf
from functorch_kit.export.program import flat
from functorch_kit.types import Model

pytest.importorskip("flatbuffers")

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(5, 6, 6, 3)).astype(np.float32)
NETWORK = nn.serial(
    conv=nn.conv(4, (3, 3)), norm=nn.batch_norm(), act=nn.relu, drop=nn.dropout(0.5),
    pool=nn.max_pool((3, 3), strides=(2, 2), padding="SAME"),
    flat=nn.flatten(), head=nn.dense(3),
)  # fmt: skip
ELSEWHERE = """
import json, sys
import numpy as np
import functorch_kit as fk
artifact = fk.export.load(sys.argv[1])
np.save(sys.argv[3], np.asarray(artifact(np.load(sys.argv[2]))))
print(json.dumps(sorted(name for name in sys.modules if name.startswith("functorch_kit."))))
"""


def _made(model: Model, x: Any) -> tuple[Any, Any]:
    """Parameters and a state that is not what it began as."""
    params, state = jax.jit(model.init)(KEY, x)
    state = jax.tree.map(lambda leaf: leaf + 0.25, state)
    return params, state


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """An artifact with gradients, and what it was made of."""
    folder = tmp_path_factory.mktemp("artifacts") / "network"
    params, state = _made(NETWORK, X)
    export.save(folder, NETWORK, params, state, X, gradients=1, task="classification",
                classes=("a", "b", "c"), source={"run": "digits", "step": 7})  # fmt: skip
    return folder, params, state


def test_in_a_fresh_process_it_is_the_model_and_no_code_of_models_is_loaded(network, tmp_path):
    folder, params, state = network
    np.save(tmp_path / "x.npy", X)
    words = [sys.executable, "-c", ELSEWHERE, folder, tmp_path / "x.npy", tmp_path / "y.npy"]
    ended = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    loaded = json.loads(ended.stdout)
    rooms = {name.split(".")[1] for name in loaded}
    assert rooms <= {"export", "data", "types", "errors", "safetensors", "untrusted"}
    expected, _ = jax.jit(NETWORK.apply)(params, state, X)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-6, atol=1e-6)


def test_one_program_takes_any_batch_and_says_what_goes_in_and_out(network):
    artifact = export.load(network[0])
    assert artifact.manifest.inputs == (Leaf("x", ("batch", 6, 6, 3), "float32"),)
    assert artifact.manifest.outputs == (Leaf("y", ("batch", 3), "float32"),)
    assert artifact.manifest.platforms == ("cpu", "cuda", "tpu")
    whole = artifact(X)
    for count in (1, 2, 5):
        np.testing.assert_allclose(artifact(X[:count]), whole[:count], rtol=1e-5, atol=1e-6)
    assert artifact.manifest.classes == ("a", "b", "c")
    assert dict(artifact.manifest.source) == {"run": "digits", "step": 7}
    assert sorted(artifact.params) == ["conv/bias", "conv/kernel", "head/bias", "head/kernel",
                                       "norm/bias", "norm/scale"]  # fmt: skip
    assert sorted(artifact.state) == ["norm/mean", "norm/var"]


def test_its_gradients_are_the_models(network):
    folder, params, state = network
    artifact = export.load(folder)

    def of_model(params):
        return jnp.sum(jnp.sin(NETWORK.apply(params, state, jnp.asarray(X))[0]))

    def of_artifact(params):
        return jnp.sum(jnp.sin(artifact.apply(params, X)))

    expected = flat(jax.jit(jax.grad(of_model))(params))
    found = jax.jit(jax.grad(of_artifact))(artifact.params)
    assert sorted(found) == sorted(expected)
    for name, slope in found.items():
        np.testing.assert_allclose(slope, expected[name], rtol=2e-5, atol=1e-5, err_msg=name)


def test_an_artifact_is_trained_further(network):
    artifact = export.load(network[0])
    y = jnp.asarray(RANDOM.normal(size=(5, 3)).astype(np.float32))

    @jax.jit
    def step(params):
        loss, slopes = jax.value_and_grad(
            lambda params: jnp.mean(jnp.square(artifact.apply(params, X) - y))
        )(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, slopes), loss

    params, losses = artifact.params, []
    for _ in range(10):
        params, loss = step(params)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_without_gradients_it_says_so_when_asked(tmp_path):
    model = nn.dense(2)
    export.save(tmp_path / "a", model, *_made(model, X[:, 0, 0]), X[:, 0, 0])
    artifact = export.load(tmp_path / "a")
    with pytest.raises(ArtifactError, match="has no gradients: export it again with gradients=1"):
        jax.grad(lambda params: artifact.apply(params, X[:, 0, 0]).sum())(artifact.params)


def test_a_second_derivative_is_there_where_it_was_asked_for(tmp_path):
    cube = Model(lambda key, x: ({"w": jnp.ones(())}, ()),
                 lambda params, state, x, **_: (params["w"] ** 3 * x, ()))  # fmt: skip
    x = np.ones((1, 1), np.float32)
    export.save(tmp_path / "a", cube, {"w": jnp.float32(2)}, (), x, gradients=2)
    artifact = export.load(tmp_path / "a")

    def value(w):
        return artifact.apply({"w": w}, x).sum()

    assert float(jax.grad(jax.grad(value))(artifact.params["w"])) == 12  # 6 w


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    model = Model(
        lambda key, x: ({"w": jnp.ones(3)}, ()),
        lambda params, state, x, **_: (
            {"sum": x["a"] + params["w"][None], "tokens": x["b"] + 1}, ()
        ),
    )  # fmt: skip
    x = {"a": np.ones((2, 3), np.float32), "b": np.arange(2, dtype=np.int32)}
    found = export.save(tmp_path / "a", model, {"w": jnp.ones(3)}, (), x, gradients=1)
    assert [str(leaf) for leaf in found.inputs] == ["float32(batch, 3)", "int32(batch)"]
    assert [leaf.name for leaf in found.outputs] == ["y/sum", "y/tokens"]
    artifact = export.load(tmp_path / "a")
    assert artifact(x)["tokens"].tolist() == [1, 2]
    slope = jax.grad(lambda params: artifact.apply(params, x)["sum"].sum())(artifact.params)
    assert slope["w"].tolist() == [2, 2, 2]


def test_a_state_with_a_key_and_a_single_array_of_parameters_pass(tmp_path):
    model = Model(
        lambda key, x: (jnp.ones(2), {"key": key}),
        lambda params, state, x, **_: (
            x * params[None] + jax.random.normal(state["key"], (2,))[None], state
        ),
    )  # fmt: skip
    x = np.ones((3, 2), np.float32)
    export.save(tmp_path / "a", model, jnp.ones(2), {"key": KEY}, x)
    artifact = export.load(tmp_path / "a")
    expected = 1 + jax.random.normal(KEY, (2,))
    np.testing.assert_allclose(artifact(x)[2], expected, rtol=1e-6)


def test_a_batch_of_one_size_where_the_model_wants_to_know_it(tmp_path):
    model = Model(lambda key, x: ({}, ()), lambda p, s, x, **_: (jnp.zeros(len(x)) + x, ()))
    fussy = Model(
        lambda key, x: ({}, ()),
        lambda p, s, x, **_: (x if x.shape[0] > 3 else 2 * x, ()),
    )  # fmt: skip
    x = np.ones(2, np.float32)
    with pytest.raises(ArtifactError, match="give batch=<records in every batch>"):
        export.save(tmp_path / "a", fussy, {}, (), x)
    assert not (tmp_path / "a").exists()
    export.save(tmp_path / "a", fussy, {}, (), x, batch=2)
    artifact = export.load(tmp_path / "a")
    assert artifact(x).tolist() == [2, 2]
    with pytest.raises(
        ArtifactError, match=r"x is float32\(3\), and the artifact takes float32\(2"
    ):
        artifact(np.ones(3, np.float32))
    assert model.init(KEY, x) == ({}, ())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:, :5], r"x is float32\(5, 5, 6, 3\), and the artifact takes float32\(batch, 6, 6, 3\)"),
        (X.astype(np.int32), r"x is int32\(5, 6, 6, 3\), and"),
        (X[0], r"x is float32\(6, 6, 3\), and"),
        (X[:0], "has no records"),
        ({"a": X}, "the input has x/a: give x"),
    ],
)
def test_another_input_is_refused_by_name(network, x, message):
    with pytest.raises(ArtifactError, match=message):
        export.load(network[0])(x)


def test_parameters_lie_in_a_file_that_others_read(network):
    folder, params, _ = network
    library = pytest.importorskip("safetensors.numpy")
    theirs = library.load_file(folder / "params.safetensors")
    np.testing.assert_array_equal(theirs["params/head/kernel"], params["head"]["kernel"])
    assert sorted(theirs) == sorted(safetensors.read(folder / "params.safetensors"))


def test_a_folder_with_other_things_in_it_is_left_alone(network, tmp_path):
    _, params, state = network
    arguments = (NETWORK, params, state, X)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear to me")
    with pytest.raises(ArtifactError, match="holds other things: choose another out"):
        export.save(tmp_path / "mine", *arguments, overwrite=True)
    model = nn.dense(1)
    made = _made(model, X[:, 0, 0])
    export.save(tmp_path / "a", model, *made, X[:, 0, 0])
    with pytest.raises(ArtifactError, match="holds an artifact: set overwrite=true"):
        export.save(tmp_path / "a", model, *made, X[:, 0, 0])
    before = export.read(tmp_path / "a")
    export.save(tmp_path / "a", model, *made, X[:, 0, 0], overwrite=True, task="regression")
    assert (before.task, export.read(tmp_path / "a").task) == ("", "regression")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mine"]


def test_an_export_that_fails_leaves_the_artifact_before_it(tmp_path):
    model = nn.dense(1)
    made = _made(model, X[:, 0, 0])
    export.save(tmp_path / "a", model, *made, X[:, 0, 0])
    with pytest.raises(ArtifactError, match="cannot be written: 'classes' is no short, printable"):
        export.save(tmp_path / "a", model, *made, X[:, 0, 0], overwrite=True, classes=("\x1b[2J",))
    assert export.load(tmp_path / "a").manifest.classes == ()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_vocabulary_travels_and_has_to_be_the_programs(tmp_path):
    model = nn.embedding(3, 3)
    x = np.zeros((1, 2), np.int32)
    records = Inputs("text", (2,), "int32")
    facts: Any = {"records": records, "task": "language model"}
    made = _made(model, x)
    export.save(tmp_path / "a", model, *made, x, vocabulary=Characters("a\nb"), **facts)
    found = export.load(tmp_path / "a").vocabulary
    assert found is not None
    assert found.decode([0, 1, 2]) == "a\nb"
    export.save(tmp_path / "b", model, *made, x, vocabulary=Characters("ab"), **facts)
    with pytest.raises(ArtifactError, match=r"vocabulary of artifact .* is another than its progr"):
        export.load(tmp_path / "b")
