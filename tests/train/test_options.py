"""Each option of the train step, against what it says it does."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import metrics, nn, precision
from functorch_kit.errors import UserError
from functorch_kit.train import (
    Options,
    OptionsError,
    TrainState,
    as_hparams,
    classification,
    evaluation_params,
    init_state,
    make_eval_step,
    make_train_step,
    regression,
)
from functorch_kit.types import spec_of

pytestmark = pytest.mark.usefixtures("standard_promotion")

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(16, 5))
Y = np.arange(16) % 3
MODEL = nn.serial(
    body=nn.serial(dense=nn.dense(7), norm=nn.layer_norm(), act=nn.tanh), head=nn.dense(3)
)


def _batch(dtype: Any = jnp.float32, **more: Any) -> dict[str, Any]:
    return {"x": jnp.asarray(X, dtype), "y": jnp.asarray(Y)} | more


def _trained(
    options: Options, steps: int = 5, model: Any = MODEL, optimizer: Any = None, **more: Any
) -> tuple[TrainState, list[dict[str, float]]]:
    optimizer = optimizer or optax.adam(1e-2)
    batch = _batch(options.policy.params, **more)
    state = init_state(model, optimizer, batch["x"], options=options)
    step = jax.jit(make_train_step(classification(model), optimizer, options))
    rows = []
    for _ in range(steps):
        state, metrics = step({}, state, batch)
        rows.append({name: float(each.compute()) for name, each in metrics.items()})
    return state, rows


def _close(a: Any, b: Any, tolerance: float) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(one, other, rtol=tolerance, atol=tolerance) for one, other in pairs)


def test_with_every_option_off_a_step_compiles_to_the_same_program_as_one_without_options():
    optimizer = optax.adamw(1e-2)

    def plain(hparams, state, batch):
        """A step as one writes it that has never heard of options."""
        key = jax.random.fold_in(state.key, state.step)

        def loss_sum(params):
            outcome = objective(params, state.model_state, batch, key=key, train=True)
            return outcome.loss_sum, outcome

        gradients, outcome = jax.grad(loss_sum, has_aux=True)(state.params)
        scale = jnp.where(outcome.weight > 0, 1 / outcome.weight, 0)
        gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=outcome.model_state,
            opt_state=opt_state,
        )
        loss = metrics.Mean(outcome.loss_sum, outcome.weight)
        return state, {"loss": loss, **outcome.metrics}

    objective = classification(MODEL)

    def hlo(step, options=None):
        state = init_state(MODEL, optimizer, _batch()["x"], options=options)
        text = jax.jit(step).lower({}, state, _batch()).compile().as_text() or ""
        text = re.sub(r"(, )?metadata=\{[^}]*\}", "", text).split("ENTRY")[-1]
        return re.sub(r"HloModule \S+", "", text)

    ours = make_train_step(objective, optimizer, Options())
    assert hlo(ours) == hlo(plain)
    measured = Options(gradient_norm=True)
    assert hlo(make_train_step(objective, optimizer, measured), measured) != hlo(plain)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_of_unequal_weight_give_the_step_of_the_whole_batch(parts: int, x64: None):
    weight = jnp.asarray(RANDOM.uniform(size=16) * (np.arange(16) > 5))  # the first part weighs 0
    whole, rows = _trained(Options(precision="float64"), 100, weight=weight)
    split, split_rows = _trained(Options(precision="float64", accumulate=parts), 100, weight=weight)
    assert _close(whole.params, split.params, 1e-10)
    losses = np.array([[row["loss"] for row in each] for each in (rows, split_rows)])
    assert np.abs(losses[0] - losses[1]).max() <= 1e-10
    assert rows[-1]["accuracy"] == pytest.approx(split_rows[-1]["accuracy"], abs=1e-12)


def test_the_order_of_a_batch_does_not_matter_over_a_hundred_steps(x64: None):
    optimizer, options = optax.adam(1e-2), Options(precision="float64", accumulate=2)
    step = jax.jit(make_train_step(classification(MODEL), optimizer, options))
    batch, order = _batch(jnp.float64), np.random.default_rng(0).permutation(16)
    shuffled = jax.tree.map(lambda leaf: leaf[order], batch)
    curves = []
    for each in (batch, shuffled):
        state, losses = init_state(MODEL, optimizer, each["x"], options=options), []
        for _ in range(100):
            state, found = step({}, state, each)
            losses.append(float(found["loss"].compute()))
        curves.append(losses)
    assert np.abs(np.array(curves[0]) - curves[1]).max() <= 1e-10


def test_micro_batches_draw_different_masks_and_pass_on_running_statistics():
    seen = nn.lambda_(lambda x: x)
    ones = {"x": jnp.ones((4, 100)), "y": jnp.ones((4, 100))}
    drop = nn.serial(drop=nn.dropout(0.5), scale=nn.dense(100))

    def dropped(params, model_state, batch, *, key, train):
        y, model_state = nn.dropout(0.5).apply({}, (), batch["x"], key=key, train=train)
        outcome = regression(seen)({}, (), {"x": y, "y": y}, key=key, train=train)
        total = metrics.Mean(y, jnp.ones(()))
        return outcome._replace(metrics={"mask": total}, model_state=model_state)

    state = init_state(drop, optax.sgd(0.1), ones["x"], options=Options(accumulate=2))
    step = make_train_step(dropped, optax.sgd(0.0), Options(accumulate=2))
    _, found = step({}, state, ones)
    # Two micro-batches added: 0, 2 and 4 in shares 1/4, 1/2, 1/4; with one mask there is no 2.
    values = np.asarray(found["mask"].total)
    assert set(values.ravel()) == {0.0, 2.0, 4.0}

    norm = nn.batch_norm(momentum=0.0)
    x = jnp.concatenate([jnp.zeros((2, 1)), jnp.full((2, 1), 8.0)])
    batch, options = {"x": x, "y": x}, Options(accumulate=2)
    state = init_state(norm, optax.sgd(0.0), x, options=options)
    state, _ = make_train_step(regression(norm), optax.sgd(0.0), options)({}, state, batch)
    assert state.model_state["mean"].tolist() == [8.0]  # the last micro-batch's


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(OptionsError, match=r"accumulate is 3, which does not divide batch/x"):
        _trained(Options(accumulate=3))


def test_frozen_parameters_stay_and_cost_no_backward_pass():
    options = Options(frozen=("body",))
    before = init_state(MODEL, optax.adam(1e-2), _batch()["x"], options=options)
    after, rows = _trained(options)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, before.params["body"], after.params["body"]))
    assert not jnp.array_equal(before.params["head"]["kernel"], after.params["head"]["kernel"])
    assert rows[-1]["loss"] < rows[0]["loss"]
    moments = [leaf.shape for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
    assert sorted(moments) == [(3,), (3,), (7, 3), (7, 3)]

    def products(options):
        step = make_train_step(classification(MODEL), optax.sgd(0.1), options)
        state = init_state(MODEL, optax.sgd(0.1), _batch()["x"], options=options)
        return str(jax.make_jaxpr(step)({}, state, _batch())).count("dot_general")

    # Forward 2; backward: of the head's kernel, of its input, of the body's kernel.
    assert products(Options()) == 5
    assert products(options) == 3


def test_a_frozen_batch_norm_is_applied_as_in_evaluation():
    model = nn.serial(norm=nn.batch_norm(), head=nn.dense(3))
    free, _ = _trained(Options(), model=model)
    frozen, _ = _trained(Options(frozen=("norm",)), model=model)
    assert float(jnp.abs(free.model_state["norm"]["mean"]).max()) > 0
    assert float(jnp.abs(frozen.model_state["norm"]["mean"]).max()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(frozen=("haed",)), "frozen: 'haed' names nothing, did you mean 'head'?"),
        (Options(frozen=("**",)), "frozen names every parameter"),
        (Options(remat=("bodi",)), "remat: 'bodi' names no part"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(options: Options, message: str):
    with pytest.raises(OptionsError, match=re.escape(message)):
        _trained(options, 1)


@pytest.mark.parametrize("patterns", [("norm/*",), ("**/scale", "**/bias")])
def test_a_batch_norm_whose_parameters_are_named_one_by_one_is_frozen_too(patterns: Any):
    model = nn.serial(norm=nn.batch_norm(), head=nn.dense(3))
    frozen, _ = _trained(Options(frozen=patterns), model=model)
    assert float(jnp.abs(frozen.model_state["norm"]["mean"]).max()) == 0
    moving, _ = _trained(Options(frozen=("**/scale",)), model=model)
    assert float(jnp.abs(moving.model_state["norm"]["mean"]).max()) > 0


def test_a_parameter_without_a_gradient_is_refused_unless_it_is_frozen():
    def apply(params, model_state, x, *, key=None, train=False):
        return x @ params["w"] * params["n"], model_state

    start = {"w": jnp.ones((5, 3)), "n": jnp.int32(2)}, ()
    model = nn.Model(lambda key, x_spec: start, apply)
    with pytest.raises(OptionsError, match=r"parameter 'n' is int32.*frozen=\['n'\]"):
        _trained(Options(), 1, model)
    state, _ = _trained(Options(frozen=["n"]), 1, model)
    assert int(state.params["n"]) == 2


@pytest.mark.parametrize("policy", ["nothing", "dots", "dots_without_batch"])
def test_rematerialised_parts_give_the_same_step_and_are_computed_again(policy: str, x64: None):
    plain, _ = _trained(Options(precision="float64"))
    options = Options(precision="float64", remat=("body",), remat_policy=policy)
    again, _ = _trained(options)
    assert _close(plain.params, again.params, 1e-12)
    step = make_train_step(classification(MODEL), optax.sgd(0.1), options)
    state = init_state(MODEL, optax.sgd(0.1), _batch()["x"], options=options)
    text = str(jax.make_jaxpr(step)({}, state, _batch(jnp.float64)))
    assert "remat" in text or "checkpoint" in text
    # The product of the body is done a second time, unless the policy keeps it.
    assert text.count("dot_general") == (6 if policy == "nothing" else 5)


def test_the_average_is_the_weighted_mean_of_all_parameters_so_far():
    options = Options(ema=0.8, evaluate="ema")
    state = init_state(MODEL, optax.sgd(0.3), _batch()["x"], options=options)
    step = jax.jit(make_train_step(classification(MODEL), optax.sgd(0.3), options))
    seen = []
    for _ in range(6):
        state, _ = step({}, state, _batch())
        seen.append(np.asarray(state.params["head"]["kernel"], np.float64))
    weights = 0.8 ** np.arange(5, -1, -1)
    expected = np.tensordot(weights / weights.sum(), seen, 1)
    found = evaluation_params(state, options)["head"]["kernel"]
    assert np.allclose(found, expected, rtol=1e-6)


def test_the_decay_of_the_average_may_be_a_hyperparameter():
    options = Options(ema=lambda h: h["decay"])
    train_step, traces = make_train_step(classification(MODEL), optax.sgd(0.3), options), []
    step = jax.jit(lambda *args: (traces.append(1), train_step(*args))[1])
    state = init_state(MODEL, optax.sgd(0.3), _batch()["x"], options=options)
    for decay in (0.0, 0.9):
        after, _ = step({"decay": jnp.float32(decay)}, state, _batch())
        assert float(after.ema.weight) == pytest.approx(1 - decay)
    assert len(traces) == 1


HALF = precision.Policy(jnp.bfloat16, jnp.bfloat16)


def test_the_average_of_half_precision_parameters_is_one():
    """In bfloat16 a decay of 0.999 is 1, and the average would stay empty."""
    options = Options(ema=0.999, evaluate="ema", precision=HALF)
    state, _ = _trained(options, 3, optimizer=optax.sgd(0.0))
    averaged = evaluation_params(state, options)
    assert _close(averaged, state.params, 1e-2)
    assert spec_of(averaged) == spec_of(state.params)


def test_hyperparameters_keep_their_digits_where_parameters_are_kept_in_halves():
    assert float(as_hparams({"b2": 0.999}, jnp.bfloat16)["b2"]) == np.float32(0.999)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_computes_in_halves_and_keeps_master_parameters(name: str):
    dtype = {"bf16": jnp.bfloat16, "fp16": jnp.float16}[name]
    policy = precision.policy(name)
    params = init_state(MODEL, optax.sgd(0.1), _batch()["x"]).params
    cast = policy.cast(params)
    assert cast["body"]["dense"]["kernel"].dtype == dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(cast["body"]["norm"])} == {"float32"}
    y, _ = MODEL.apply(cast, (), _batch()["x"])
    assert y.dtype == dtype
    state, rows = _trained(Options(precision=name), 200)
    exact, exact_rows = _trained(Options(), 200)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
    assert rows[-1]["loss"] == pytest.approx(exact_rows[-1]["loss"], abs=0.03)
    step = make_eval_step(classification(MODEL), Options(precision=name))
    loss = step({}, exact.params, (), _batch())["loss"].compute()
    assert loss.dtype == jnp.float32


def test_paths_that_keep_their_precision_compute_in_it():
    keeping = precision.policy("bf16", keep=("head",))
    params = init_state(MODEL, optax.sgd(0.1), _batch()["x"]).params
    y, _ = MODEL.apply(keeping.cast(params), (), _batch()["x"])
    assert y.dtype == jnp.float32


def test_a_scale_beside_a_kernel_makes_no_norm():
    normed = {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    cast = precision.policy("bf16").cast({"dense": normed, "norm": {"scale": jnp.ones(3)}})
    assert cast["dense"]["kernel"].dtype == cast["dense"]["scale"].dtype == jnp.bfloat16
    assert cast["norm"]["scale"].dtype == jnp.float32


def test_double_precision_needs_jax_to_have_it():
    with pytest.raises(precision.PrecisionError, match="JAX_ENABLE_X64"):
        init_state(MODEL, optax.sgd(0.1), _batch()["x"], options=Options(precision="float64"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "accumulate is 0"),
        ({"ema": 1.0}, "ema is 1.0: give a decay from 0 to below 1"),
        ({"ema": "0.9"}, "ema is '0.9': give a decay"),
        ({"remat_policy": "dots"}, "remat_policy is for the parts in remat"),
        ({"precision": "fp8"}, "'fp8' is not one of float32, bf16"),
        ({"remat": "blocks"}, "remat is one pattern"),
        ({"remat_policy": "some"}, "'some' is not one of nothing, dots"),
        ({"evaluate": "ema"}, "there is none: give ema a decay"),
        ({"evaluate": "mean"}, "neither 'params' nor 'ema'"),
    ],
)
def test_options_that_do_not_exist_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        Options(**settings)


def test_precision_kept_by_a_path_that_names_nothing_is_refused():
    options = Options(precision=precision.policy("bf16", keep=("haed",)))
    with pytest.raises(OptionsError, match="precision: 'haed' names nothing, did you mean 'head'"):
        init_state(MODEL, optax.sgd(0.1), _batch()["x"], options=options)


def test_numbers_of_python_are_fine_as_parameters_and_as_state():
    def apply(params, model_state, x, *, key=None, train=False):
        return x[:, :3] * params["w"], {"n": model_state["n"] + 1}

    model = nn.Model(lambda key, x_spec: ({"w": 0.5}, {"n": 0}), apply)
    state, _ = _trained(Options(accumulate=2, ema=0.5), 2, model)
    assert state.params["w"].dtype == jnp.float32
    assert int(state.model_state["n"]) == 4
    assert not state.model_state["n"].weak_type


@pytest.mark.parametrize("options", [Options(accumulate=2), Options(precision="fp16")])
def test_a_state_that_comes_out_in_another_dtype_is_refused_by_name(options: Options):
    def apply(params, model_state, x, *, key=None, train=False):
        return x @ params["w"], {"mean": jnp.mean(x).astype(jnp.bfloat16)}

    start = {"w": jnp.ones((5, 3))}, {"mean": jnp.zeros(())}
    with pytest.raises(UserError, match=r"state/model_state/mean goes in as float32.* bfloat16"):
        _trained(options, 1, nn.Model(lambda key, x_spec: start, apply))


@pytest.mark.parametrize("shape", [(), (4, 4)])
def test_a_leaf_that_is_no_part_of_the_records_is_not_split(shape: tuple[int, ...]):
    with pytest.raises(OptionsError, match=r"batch/mask of shape \(.*give every leaf an axis 0"):
        _trained(Options(accumulate=2), 1, mask=jnp.ones(shape))


def test_the_gradient_norm_is_the_gradients():
    batch = {"x": jnp.array([[3.0], [4.0]]), "y": jnp.zeros((2, 1))}
    model = nn.dense(1, use_bias=False, kernel_init=jax.nn.initializers.ones)
    options = Options(gradient_norm=True)
    state = init_state(model, optax.sgd(0.1), batch["x"], options=options)
    _, found = make_train_step(regression(model), optax.sgd(0.1), options)({}, state, batch)
    # d/dw mean (w x)² = 2 w mean x² = 25
    assert float(found["gradient_norm"].compute()) == pytest.approx(25.0)


def test_an_optimizer_that_asks_for_the_loss_as_a_function_gets_it():
    optimizer = optax.lbfgs()
    batch = {"x": jnp.asarray(X, jnp.float32), "y": jnp.asarray(X @ np.ones((5, 1)), jnp.float32)}
    model = nn.dense(1)
    state = init_state(model, optimizer, batch["x"])
    step, losses = jax.jit(make_train_step(regression(model), optimizer)), []
    for _ in range(15):
        state, found = step({}, state, batch)
        losses.append(float(found["loss"].compute()))
    assert losses[-1] < 1e-6  # a quadratic, solved


def test_sharpness_aware_steps_take_the_gradient_a_second_time():
    optimizer = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True)
    batch = {"x": jnp.ones((1, 1)), "y": jnp.zeros((1, 1))}
    model = nn.dense(1, use_bias=False, kernel_init=jax.nn.initializers.ones)
    state = init_state(model, optimizer, batch["x"])
    state, _ = make_train_step(regression(model), optimizer)({}, state, batch)
    # The gradient of w² at 1 is 2; uphill by 0.05 * 2 to 1.1, where it is 2.2; 1 - 0.1 * 2.2.
    assert float(state.params["kernel"][0, 0]) == pytest.approx(0.78)
