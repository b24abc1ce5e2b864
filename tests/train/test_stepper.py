"""Any number of steps by one executable: where dispatches begin and end does not move a bit."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import data, nn
from functorch_kit.program import ProgramMismatch, ProgramRefused
from functorch_kit.train import (
    Form,
    Stepper,
    as_hparams,
    block_steps,
    classification,
    compiled_init,
    init_state,
    make_init,
    make_train_step,
)
from functorch_kit.train import stepper as stepper_module

STEPS = 40
HPARAMS = {"learning_rate": 0.05}
MODELS = {
    "mlp": nn.serial(
        flat=nn.flatten(), hidden=nn.dense(8), norm=nn.batch_norm(), act=nn.relu,
        drop=nn.dropout(0.3), head=nn.dense(3),
    ),
    "cnn": nn.serial(
        conv=nn.conv(3, (3, 3), method="patches"), act=nn.relu, pool=nn.max_pool((2, 2)),
        flat=nn.flatten(), drop=nn.dropout(0.3), head=nn.dense(3),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _optax_mixes_dtypes(standard_promotion):
    """Adam does; and blocks of 16 steps, so that 40 steps cross from one to the next."""


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stepper_module, "_BLOCK_STEPS", 16)


def _optimizer(hparams):
    return optax.adamw(hparams["learning_rate"])


@cache
def _pipeline(resident: bool = True) -> data.Pipeline:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 4, 4, 1)).astype(np.float32)
    order = data.Shuffled(30, 8, seed=1)
    return data.Pipeline({"x": x, "y": (np.arange(30) % 3).astype(np.int32)}, order, resident)


@cache
def _first(name: str) -> Any:
    spec = _pipeline().spec["x"]
    return init_state(MODELS[name], _optimizer, spec, hparams=HPARAMS, seed=3)


def _start(name: str) -> Any:
    """Copies, because a step takes the buffers of the state that it is given."""
    return jax.tree.map(jnp.copy, _first(name))


@cache
def _stepper(name: str, form: str, resident: bool = True) -> Stepper:
    step = make_train_step(classification(MODELS[name]), _optimizer)
    hparams = as_hparams(HPARAMS)
    return Stepper(step, _pipeline(resident), hparams, _start(name), Form(form, "test"))


def _hash(state: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key))):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _run(stepper: Stepper, name: str, chunk: int) -> tuple[str, np.ndarray]:
    state, losses = _start(name), []
    for start in range(0, STEPS, chunk):
        count = min(chunk, STEPS - start)
        state, fetch = stepper(as_hparams(HPARAMS), state, start, count)
        losses.append(fetch()["loss"])
        assert len(losses[-1]) == count
    assert int(state.step) == STEPS
    return _hash(state), np.concatenate(losses)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["chunk", "single"])
def test_the_length_of_chunks_moves_no_bit_and_compiles_nothing_again(form, name):
    stepper = _stepper(name, form)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    whole = _run(stepper, name, STEPS)  # the first state and its copies compile here
    compiled.clear()
    parts, single = (_run(stepper, name, chunk) for chunk in (7, 1))
    assert compiled == []
    assert whole[0] == parts[0] == single[0]
    np.testing.assert_array_equal(whole[1], parts[1])
    np.testing.assert_array_equal(whole[1], single[1])


@pytest.mark.parametrize("name", MODELS)
def test_the_single_form_is_a_hand_written_loop_to_the_bit(name):
    step = jax.jit(make_train_step(classification(MODELS[name]), _optimizer))
    state, losses = _start(name), []
    for number in range(STEPS):
        state, metrics = step(as_hparams(HPARAMS), state, _pipeline()(number))
        losses.append(np.asarray(metrics["loss"].total) / np.asarray(metrics["loss"].weight))
    found, rows = _run(_stepper(name, "single"), name, STEPS)
    assert found == _hash(state)
    np.testing.assert_array_equal(rows, losses)


def test_streamed_and_resident_data_train_the_same_state():
    resident = _run(_stepper("mlp", "chunk"), "mlp", 11)
    streamed = _run(_stepper("mlp", "chunk", resident=False), "mlp", 11)
    assert resident[0] == streamed[0]


@pytest.mark.parametrize("form", ["chunk", "single"])
def test_the_old_state_is_donated_and_the_report_says_so(form):
    stepper, state = _stepper("mlp", form), _start("mlp")
    leaf = state.params["hidden"]["kernel"]
    stepper(as_hparams(HPARAMS), state, 0, 2)
    assert leaf.is_deleted()
    assert stepper.program.report.not_donated == ()


def test_another_learning_rate_runs_in_the_same_program():
    stepper = _stepper("mlp", "chunk")
    (slow, _), (fast, _) = (
        stepper(as_hparams({"learning_rate": rate}), _start("mlp"), 0, 1) for rate in (0.0, 0.5)
    )
    first = _start("mlp").params["hidden"]["kernel"]
    assert (slow.params["hidden"]["kernel"] == first).all()
    assert (fast.params["hidden"]["kernel"] != first).any()


def test_a_block_is_bounded_by_its_bytes_and_its_steps(monkeypatch: pytest.MonkeyPatch):
    assert block_steps({"index": jax.ShapeDtypeStruct((64,), jnp.int32)}) == 16
    monkeypatch.setattr(stepper_module, "_BLOCK_BYTES", 1000)
    assert block_steps({"x": jax.ShapeDtypeStruct((25,), jnp.float32)}) == 10
    assert block_steps({"x": jax.ShapeDtypeStruct((9999,), jnp.float32)}) == 1


@pytest.mark.parametrize("form", ["chunk", "single"])
def test_a_state_that_drifts_is_refused_before_the_first_step_and_the_leaf_is_named(form):
    step = make_train_step(classification(MODELS["mlp"]), _optimizer)

    def drifts(hparams, state, batch):
        after, metrics = step(hparams, state, batch)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), after.params)
        return after.replace(params={**after.params, "head": params["head"]}), metrics

    with pytest.raises(ProgramRefused) as caught:
        Stepper(drifts, _pipeline(), as_hparams(HPARAMS), _first("mlp"), Form(form, "test"))
    assert str(caught.value) == (
        "train_step: state/params/head/bias goes in as float32[3] and comes out as bfloat16[3];"
        " state/params/head/kernel goes in as float32[8,3] and comes out as bfloat16[8,3];"
        " return the state as it was taken (a cast: .astype)"
    )


@pytest.mark.parametrize("form", ["chunk", "single"])
def test_a_train_step_that_captures_a_large_array_is_refused_and_the_array_is_named(form):
    step = make_train_step(classification(MODELS["mlp"]), _optimizer)
    prior = np.linspace(0, 1, 2000, dtype=np.float32)

    def uses(hparams, state, batch):
        x = batch["x"] * (jnp.asarray(prior)[state.step] + 1)
        return step(hparams, state, {**batch, "x": x})

    with pytest.raises(ProgramRefused, match=r"captures .*prior, float32\[2000\] of 8.0 kB"):
        Stepper(uses, _pipeline(), as_hparams(HPARAMS), _first("mlp"), Form(form, "test"))


def test_the_state_before_the_first_step_comes_out_of_a_program():
    init = make_init(MODELS["mlp"], _optimizer, _pipeline().spec["x"])
    hparams, key = as_hparams(HPARAMS), jax.random.key(3)
    compiled = compiled_init(init, hparams, key)
    assert compiled.report.name == "init"
    assert _hash(compiled(hparams, key)) == _hash(_first("mlp"))
    with pytest.raises(ProgramMismatch, match="init: hparams/momentum is float32"):
        compiled({**hparams, "momentum": jnp.float32(0.9)}, key)
