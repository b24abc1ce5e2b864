"""A training step in several modes: sound ones agree, and each planted bug turns its row red."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import functorch_kit as fk
from functorch_kit import modes, nn, program, train
from functorch_kit.program import contestant
from functorch_kit.program import variants as executions
from functorch_kit.train import gradient as gradients
from functorch_kit.types import Model, Outcome

pytestmark = pytest.mark.usefixtures("short_samples")

QUICK: dict[str, Any] = {"rounds": 1, "matmul_size": 64, "steps": 3, "seconds": 60.0}
MODES = ("jit", "accumulate=2", "sharded=2")


def net(**parts) -> Model:
    return nn.serial(hidden=nn.dense(16), act=nn.relu, **parts, head=nn.dense(3))


def batch(weights=None, count=8) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(7), 2)
    found = {"x": jax.random.normal(keys[0], (count, 6)), "y": jnp.arange(count) % 3}
    return found if weights is None else found | {"weight": jnp.asarray(weights, jnp.float32)}


def compare(model, data, variants=MODES, **options) -> program.Comparison:
    objective = train.classification(model)
    return fk.compare_steps(
        model, objective, optax.sgd(0.1), data, variants=variants, **QUICK | options
    )


def red(found: program.Comparison) -> list[str]:
    assert [row.error for row in found.variants] == [None] * len(found.variants)
    # A step so small is timed too coarsely to be held against a matrix product.
    return [row.name for row in found.variants if not row.agrees or "clock" in str(row.faults)]


RAGGED = [1, 1, 1, 1, 1, 0, 0, 0]


def test_sound_modes_agree_with_ragged_weights_dropout_and_batch_statistics():
    model = net(norm=nn.batch_norm(), dropout=nn.dropout(0.5))
    combined = "scan=3+accumulate=4+remat+sharded=2"
    names = ("jit", "accumulate=2", "remat+donate", combined, "vmap+bf16")
    found = compare(model, batch(RAGGED), names)
    assert red(found) == []
    assert (found["vmap+bf16"].max_relative_difference or 0) > 1e-4
    assert found["accumulate=2"].compared_with == "2 micro-batches written out"
    assert found[combined].compared_with == "4 micro-batches written out"
    assert found["remat+donate"].compared_with == "jit"


def test_fp16_is_compared_from_a_loss_scale_that_fits(standard_promotion):
    data = batch() | {"x": 4 * batch()["x"]}  # float16 gradients overflow at the first scale
    found = compare(net(), data, ("jit", "fp16"))
    assert found["fp16"].error is None
    moved = found["fp16"].max_relative_difference
    assert moved is not None
    assert moved < 0.5  # a refused step would leave the start


def accumulated_badly(bug: str, gradient, parts: int):
    """Accumulation with one of two bugs that others have shipped."""

    def accumulated(trainable, fixed, model_state, data, key, loss_scale):
        total, outcomes = None, []
        for index in range(parts):
            micro = jax.tree.map(lambda leaf, index=index: jnp.split(leaf, parts)[index], data)
            at = key if bug == "one key" else jax.random.fold_in(key, index)
            one, outcome = gradient(trainable, fixed, model_state, micro, at, loss_scale)
            if bug == "means":
                one = jax.tree.map(lambda leaf, w=outcome.weight: leaf / jnp.maximum(w, 1), one)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
            outcomes.append(outcome)
        sums = [(each.loss_sum, each.weight, each.metrics) for each in outcomes]
        loss_sum, weight, metrics = jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *sums)
        if bug == "means":
            total = jax.tree.map(lambda leaf: leaf / parts * weight, total)
        return total, Outcome(loss_sum, weight, outcomes[-1].model_state, metrics)

    return accumulated


def test_accumulation_that_averages_means_turns_its_row_red(monkeypatch):
    monkeypatch.setattr(gradients, "_accumulated", functools.partial(accumulated_badly, "means"))
    assert red(compare(net(), batch(RAGGED))) == ["accumulate=2"]
    # With equal weights the mean of means is the mean.
    assert red(compare(net(), batch(), ("jit", "accumulate=2"))) == []


def test_a_dropout_key_that_does_not_change_with_the_micro_batch_turns_its_row_red(monkeypatch):
    monkeypatch.setattr(gradients, "_accumulated", functools.partial(accumulated_badly, "one key"))
    found = compare(net(dropout=nn.dropout(0.5)), batch())
    assert red(found) == ["accumulate=2"]
    row = found["accumulate=2"]
    assert (row.diverges_at, row.diverges_at_step) == ("dropout", 1)
    # Without randomness there is no bug.
    assert red(compare(net(), batch(), ("jit", "accumulate=2"))) == []


def with_local_statistics(objective, devices: int):
    """Data parallelism by hand: sums are added over devices, batch statistics are not."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))

    def parallel(params, model_state, data, *, key, train) -> Outcome:
        def local(params, model_state, data):
            outcome = objective(params, model_state, data, key=None, train=train)
            sums = outcome.loss_sum, outcome.weight, outcome.metrics
            state = jax.tree.map(lambda leaf: jax.lax.pmean(leaf, "data"), outcome.model_state)
            return jax.lax.psum(sums, "data"), state

        sums, state = jax.shard_map(
            local, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(), check_vma=False
        )(params, model_state, data)
        return Outcome(sums[0], sums[1], state, sums[2])

    return parallel


def test_batch_statistics_that_ignore_sharding_turn_their_row_red():
    model, sgd = net(norm=nn.batch_norm()), optax.sgd(0.1)
    data = batch()
    state = train.init_state(model, sgd, data["x"])
    step = train.make_train_step(with_local_statistics(train.classification(model), 2), sgd)
    local = program.Case("local", how="sharded=2", fn=step, args=({}, state, data))
    found = compare(model, data, (*MODES, local))
    assert red(found) == ["local"]
    assert "model_state/norm" in str(found["local"].faults) or found["local"].worst_leaf

    plain = net()  # the same by hand without statistics is sound
    state = train.init_state(plain, sgd, data["x"])
    step = train.make_train_step(with_local_statistics(train.classification(plain), 2), sgd)
    sound = program.Case("local", how="sharded=2", fn=step, args=({}, state, data))
    assert red(compare(plain, data, ("jit", sound))) == []


def test_a_stale_closure_turns_its_row_red():
    settings = {"rate": 0.1}

    @jax.jit
    def step(w, x):
        return w - settings["rate"] * x

    w, x = jnp.ones(4), jnp.ones(4)
    step(w, x)
    options: dict[str, Any] = {"carry": 0, "rounds": 1, "matmul_size": 64}
    names = ("eager", "jit", "aot", "scan", "as_given")
    assert red(program.compare(step, w, x, variants=names, **options)) == []
    settings["rate"] = 0.2
    assert red(program.compare(step, w, x, variants=names, **options)) == ["as_given"]


def test_a_missing_block_until_ready_turns_its_row_red(monkeypatch):
    def slow(x):
        for _ in range(8):
            x = jnp.tanh(x @ x)
        return x

    monkeypatch.setattr(executions.Jit, "wait", lambda self, output: output)
    # As nobody waits, a sample of the usual length would be thousands of calls.
    monkeypatch.setattr(contestant, "_SAMPLE_SECONDS", 1e-4)
    found = program.compare(slow, jnp.ones((400, 400)), variants=("aot", "jit"), rounds=2,
                            matmul_size=512)  # fmt: skip
    assert red(found) == ["jit"]
    assert "the clock was stopped before output was there" in str(found["jit"].faults)
    assert found["jit"].red
    assert found["jit"].agrees


def test_a_result_that_cannot_be_waited_for_turns_its_row_red():
    class Promise:
        def __array__(self, dtype=None, copy=None):
            return np.zeros(2)

    found = program.compare(lambda x: Promise(), jnp.ones(2), variants=("eager",), rounds=1,
                            matmul_size=64)  # fmt: skip
    assert "output is a Promise, which cannot be waited for" in str(found["eager"].faults)


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("acumulate=2", "did you mean 'accumulate'?"),
        ("accumulate", "needs a number: accumulate=<micro-batches>"),
        ("bf16+fp16", "'bf16' or 'fp16', not both"),
        ("eager+scan+bf16", "not both"),
        ("eager+bf16+donate", "'donate' needs a program"),
    ],
)
def test_a_mode_without_sense_is_refused(variant, said):
    with pytest.raises(program.ComparisonError) as caught:
        compare(net(), batch(), ("jit", variant))
    assert said in str(caught.value)


def test_micro_batches_that_do_not_divide_the_batch_are_a_row_that_says_so():
    found = compare(net(), batch(), ("jit", "accumulate=3"))
    assert "accumulate is 3, which does not divide batch/x" in str(found["accumulate=3"].error)
    assert found["accumulate=3"].red


def test_remat_takes_the_blocks_of_a_model_that_has_some():
    params = {"stages": {"0": {"blocks": {"0": 1}}, "1": {"blocks": {"0": 1}}}, "head": 1}
    assert modes.blocks(params) == ("stages/*",)


def test_the_step_can_be_read_as_text_and_as_layers():
    model = net()
    found = modes.views(model, train.classification(model), optax.sgd(0.1), batch())
    assert "HloModule" in found["hlo"]
    assert [row.path for row in found["summary"].rows] == ["hidden", "act", "head"]
