"""Modules of Linen, NNX, Equinox and Haiku as Models: the same numbers, and a life like our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import functorch_kit as fk
from functorch_kit import interop
from tests.interop.foreign_modules import INPUTS, MOMENTUM, NETS, OUTPUTS, Net, batch

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")


@pytest.fixture(scope="module", params=list(NETS))
def net(request: pytest.FixtureRequest) -> Net:
    with jax.numpy_dtype_promotion("standard"):
        return NETS[request.param]()


@pytest.fixture(scope="module")
def begun(net: Net) -> tuple[Any, Any]:
    x_spec = jax.ShapeDtypeStruct((16, INPUTS), jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(lambda key: net.model.init(key, x_spec))(jax.random.key(0))


def equal(one: Any, other: Any) -> bool:
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def test_evaluation_is_what_the_library_itself_computes(net: Net, begun: Any):
    params, state = begun
    # Away from the first statistics, which do nothing.
    state = jax.tree.map(lambda a: a + 0.25 if jnp.issubdtype(a.dtype, jnp.floating) else a, state)
    y, after = net.model.apply(params, state, batch())
    assert y.shape == (16, OUTPUTS)
    np.testing.assert_allclose(y, net.directly(params, state, batch()), rtol=1e-5, atol=1e-6)
    assert equal(after, state)


def test_running_statistics_follow_the_batch_in_training(net: Net, begun: Any):
    params, state = begun
    key = jax.random.key(1)
    _, after = net.model.apply(params, state, batch(), key=key, train=True)
    mean = (batch() @ np.asarray(net.kernel(params))).mean(0)  # the first biases are zero,
    if (bias := params.get("hidden", {}).get("bias")) is not None:
        mean = mean + np.asarray(bias)  # but not Equinox's
    np.testing.assert_allclose(net.mean(after), (1 - MOMENTUM) * mean, rtol=1e-4, atol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_dropout_follows_the_key_and_nothing_else(net: Net, begun: Any):
    def trained(seed: int) -> Any:
        return net.model.apply(*begun, batch(), key=jax.random.key(seed), train=True)

    assert equal(trained(1), trained(1))
    assert not equal(trained(1)[0], trained(2)[0])
    plain, _ = net.model.apply(*begun, batch())
    keyed, _ = net.model.apply(*begun, batch(), key=jax.random.key(1))
    np.testing.assert_array_equal(plain, keyed)


def test_parameters_follow_the_key_of_init(net: Net, begun: Any):
    x_spec = jax.ShapeDtypeStruct((16, INPUTS), jnp.float32)
    init = jax.jit(lambda key: net.model.init(key, x_spec))
    assert equal(init(jax.random.key(0)), begun)
    assert not equal(init(jax.random.key(1))[0], begun[0])


def fit_arguments(net: Net, **changes: Any) -> dict[str, Any]:
    x = batch(60)
    data = fk.data.arrays(x, (x[:, 0] > 0.5).astype(np.int32), batch_size=10, seed=0)
    arguments: dict[str, Any] = {
        "model": net.model,
        "objective": fk.train.classification(net.model),
        "optimizer": lambda h: optax.sgd(h["learning_rate"], momentum=0.9),
        "hparams": {"learning_rate": 0.05},
        "data": data,
        "steps": 6,
        "seed": 0,
    }
    return arguments | changes


@pytest.fixture(scope="module")
def whole(net: Net) -> Any:
    """A run of six steps that was left in peace."""
    with jax.numpy_dtype_promotion("standard"):
        return fk.fit(**fit_arguments(net), quiet=True)


def test_a_run_that_stopped_and_went_on_ends_with_the_bits_of_one_that_did_not(
    net: Net, whole: Any, tmp_path: Path
):
    fk.fit(**fit_arguments(net, steps=4, run_dir=tmp_path), quiet=True)
    resumed = fk.fit(**fit_arguments(net, run_dir=tmp_path, resume=True), quiet=True)
    assert resumed.summary["steps"] == 6
    for name in ("params", "model_state", "opt_state"):
        assert equal(getattr(resumed.state, name), getattr(whole.state, name)), name
    assert not equal(whole.state.model_state, jax.tree.map(jnp.zeros_like, whole.state.model_state))


@pytest.mark.soak
def test_lanes_of_a_sweep_are_their_solo_runs(net: Net, whole: Any):
    shared = fit_arguments(net)
    jobs: list[dict[str, Any]] = [
        shared | {"hparams": {"learning_rate": rate}} for rate in (0.02, 0.05)
    ]
    result = fk.sweep.run(jobs, mode="lanes", devices=1, say=None)
    assert result.compiles == 1
    other, lane = (job.result.state for job in result.jobs if job.result is not None)
    near(lane.params, whole.state.params)
    near(lane.model_state, whole.state.model_state)
    assert not equal(other.params, lane.params)


def near(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_it_exports_like_our_own_for_any_batch_and_every_platform(
    net: Net, begun: Any, tmp_path: Path
):
    x_spec = jax.ShapeDtypeStruct((16, INPUTS), jnp.float32)
    params, state = begun
    manifest = fk.export.save(tmp_path / "out", net.model, params, state, x_spec)
    assert manifest.platforms == ("cpu", "cuda", "tpu")
    y, _ = net.model.apply(params, state, batch(5))
    np.testing.assert_allclose(fk.export.load(tmp_path / "out")(batch(5)), y, rtol=1e-5, atol=1e-6)


def test_how_training_is_told_goes_by_the_names_that_are_taken():
    flags = interop.flags_of
    assert flags(lambda x, train: x)(True) == {"train": True}
    assert flags(lambda x, is_training: x)(False) == {"is_training": False}
    assert flags(lambda x, deterministic, inference: x)(True) == {
        "deterministic": False, "inference": False,
    }  # fmt: skip
    assert flags(lambda x: x)(True) == {}


def test_a_module_with_words_of_its_own_is_told_by_flags_and_call():
    linen = pytest.importorskip("flax.linen")

    class Module(linen.Module):
        @linen.compact
        def __call__(self, a: Any, b: Any, mode: str) -> Any:
            return linen.Dense(2)(a) + (b if mode == "learn" else 0 * b)

    model = interop.from_linen(
        Module(),
        flags=lambda train: {"mode": "learn" if train else "know"},
        call=lambda module, x, mode: module(x["a"], x["b"], mode),
    )
    x = {"a": jnp.ones((1, 3)), "b": jnp.full((1, 2), 7.0)}
    params, state = model.init(jax.random.key(0), x)
    evaluated, _ = model.apply(params, state, x)
    trained, _ = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(trained - evaluated, 7.0, rtol=1e-6)


def test_a_cache_of_linen_is_model_state_in_evaluation_too():
    linen = pytest.importorskip("flax.linen")

    class Counter(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            count = self.variable("cache", "count", lambda: jnp.zeros((), jnp.int32))
            if not self.is_initializing():
                count.value = count.value + 1
            return x + count.value.astype(x.dtype)

    model = interop.from_linen(Counter())
    params, state = model.init(jax.random.key(0), jnp.ones(1))
    for expected in (2.0, 3.0):
        y, state = model.apply(params, state, jnp.ones(1))
        assert y.tolist() == [expected]


def test_several_functions_of_haiku_are_refused_in_one_line():
    hk = pytest.importorskip("haiku")
    several = hk.multi_transform(lambda: (lambda x: x, (lambda x: x, lambda x: x)))
    with pytest.raises(interop.InteropError, match="several functions are no Model"):
        interop.from_haiku(several)


def test_a_library_that_is_missing_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "haiku", None)
    with pytest.raises(interop.InteropError, match=r"pip install 'functorch_kit\[interop\]'"):
        interop.from_haiku(lambda x: x)
