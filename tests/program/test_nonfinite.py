"""The operation that the first NaN or Inf came from is named: layer, iteration, direction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from functorch_kit import models, nn, train
from functorch_kit.program import Finding, first_nonfinite
from tests.program.planted import stack

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def find(fn: Callable[..., Any], *given: Any, **options: Any) -> Finding:
    """The finding, which there has to be."""
    found = first_nonfinite(fn, *given, **options)
    assert found is not None
    return found


def step_of(model: nn.Model, x=X, optimizer=None, objective=train.regression, **options):
    """A train step, and what it is given: hparams, state and batch."""
    optimizer, x = optimizer or optax.adam(0.1), jnp.asarray(x)
    chosen = train.Options(**options)
    state = train.init_state(model, optimizer, x, options=chosen)
    batch = {"x": x, "y": jnp.zeros_like(model.apply(state.params, (), x)[0])}
    return train.make_train_step(objective(model), optimizer, chosen), ({}, state, batch)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("fault", "direction", "primitive"),
    [("forward", "forward", "log"), ("custom_vjp", "backward", "log"), ("sqrt", "backward", "div")],
)
def test_a_fault_in_layer_7_of_a_scanned_stack_is_named_with_its_direction(
    maybe_jit, fault: str, direction: str, primitive: str
):
    remat = maybe_jit is jax.jit  # the two have nothing to do with each other: half the runs
    step, given = step_of(stack(fault, remat=remat))
    found = find(maybe_jit(step), *given)
    assert (found.path, found.direction) == ("blocks/7/planted", direction)
    assert found.primitive == primitive
    assert all(each.is_finite for each in found.inputs)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint], ids=["jit", "checkpoint"])
def test_a_fault_inside_a_call_inside_the_loop_is_named_by_its_own_operation(wrap):
    step, given = step_of(stack("forward", wrap=wrap))
    found = find(step, *given)
    assert (found.path, found.primitive, found.output.nan) == ("blocks/7/planted", "log", 1)
    assert found.inputs[0].least == -1.0
    assert str(found.line).startswith("planted.py:")


def test_micro_batches_are_a_loop_that_no_part_is_named_after():
    step, given = step_of(stack("forward"), x=np.ones((4, 4), np.float32), accumulate=2)
    found = find(step, *given)
    assert found.path == "[0]/blocks/7/planted"


def test_a_bad_record_is_named_with_its_argument_and_row():
    step, (hparams, state, batch) = step_of(nn.dense(2))
    batch["x"] = batch["x"].at[2, 1].set(jnp.nan)
    found = find(step, hparams, state, batch)
    assert (found.path, found.direction, found.output.first_bad) == ("batch/x", "argument", (2, 1))
    assert "argument batch/x (row 2) came in non-finite" in str(found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_parameter_is_named_by_its_address(value: float):
    step, (hparams, state, batch) = step_of(stack("none"))
    kernel = state.params["blocks"]["dense"]["kernel"]
    state.params["blocks"]["dense"]["kernel"] = kernel.at[5, 0, 1].set(value)
    found = find(step, hparams, state, batch)
    assert found.path == "state/params/blocks/dense/kernel"
    assert found.output.first_bad == (5, 0, 1)


def test_an_overflow_is_named_where_it_is_made_and_not_where_it_turns_into_nan():
    def f(x):
        with jax.named_scope("scores"):
            scores = jnp.exp(x)
        with jax.named_scope("normalised"):
            return scores / scores.sum()

    found = find(f, jnp.array([1.0, 100.0]))
    assert (found.path, found.primitive) == ("scores", "exp")
    assert (found.output.positive_infinite, found.output.first_bad) == (1, (1,))
    assert found.inputs[0].most == 100.0


def test_what_the_optimizer_makes_of_finite_gradients_is_called_the_update():
    step, given = step_of(nn.dense(2), optimizer=optax.scale_by_learning_rate(jnp.float32(1e38)))
    hparams, state, batch = given
    batch["x"] = batch["x"] * 1e10
    found = find(step, hparams, state, batch)
    assert (found.direction, found.primitive) == ("update", "mul")
    assert str(found.reached).startswith("0/params/")


def test_a_forward_value_comes_before_the_factors_of_derivatives_that_are_computed_beside_it():
    def loss(x, z):
        with jax.named_scope("root"):
            y = jnp.sqrt(x)  # at 0 its slope is infinite, and is computed here
        with jax.named_scope("ratio"):
            return jnp.sum(y) + jnp.sum(z / z)  # the loss itself is 0 / 0

    found = find(jax.value_and_grad(loss), jnp.zeros(2), jnp.zeros(2))
    assert (found.path, found.direction) == ("ratio", "forward")


def masked_attention(x, mask):
    scores = jnp.where(mask, x @ x.T, -jnp.inf)
    with jax.named_scope("weights"):
        return jax.nn.softmax(scores, axis=-1) @ x


@pytest.mark.parametrize("fill", [-jnp.inf, jnp.finfo(jnp.float32).min])
def test_a_causal_mask_is_no_finding_and_hides_none(fill: float):
    def loss(x, slope):
        scores = jnp.where(jnp.tri(3, dtype=bool), x @ x.T, fill)
        y = jax.nn.softmax(scores, axis=-1) @ x
        with jax.named_scope("later"):
            return jnp.sum(jnp.sqrt(y * y * slope)) + 0 * jax.nn.logsumexp(scores)

    fine, bad = jnp.asarray(X + 3), jnp.float32(-1)
    assert first_nonfinite(jax.value_and_grad(loss), fine, -bad) is None
    found = find(jax.value_and_grad(loss), fine, bad)
    assert (found.path, found.primitive) == ("later", "sqrt")


def test_a_row_that_is_masked_away_whole_is_found_in_the_softmax():
    mask = jnp.array([[True, True], [False, False]])
    found = find(masked_attention, jnp.ones((2, 2)), mask)
    assert (found.path, found.primitive, found.output.first_bad) == ("weights", "sub", (1, 0))


def test_a_mask_that_comes_in_as_infinities_does_not_hide_an_overflow():
    def f(x, mask):
        with jax.named_scope("scores"):
            scores = (x @ x.T).astype(jnp.float16)
        with jax.named_scope("weights"):
            return jax.nn.softmax(scores + mask, axis=-1)

    mask = jnp.where(jnp.tri(3, dtype=bool), 0, -jnp.inf).astype(jnp.float16)
    assert first_nonfinite(f, jnp.ones((3, 2)), mask) is None
    found = find(f, 300 * jnp.ones((3, 2)), mask)
    assert (found.path, found.primitive) == ("scores", "convert_element_type")


def test_an_infinity_that_stands_for_nothing_yet_may_pass():
    def track(best, loss):
        return {"best": jnp.minimum(best, loss), "unused": best, "never": jnp.full(2, jnp.inf)}

    assert first_nonfinite(track, jnp.float32(np.inf), jnp.float32(1)) is None
    assert find(lambda best: best + 1, jnp.float32(np.inf)).path == "best"


def test_a_constant_nan_is_named_where_it_is_mixed_in():
    filled = jnp.full(2, jnp.nan)
    found = find(lambda x: jnp.where(x > 1, filled, x), jnp.arange(2.0) + 1)
    assert (found.primitive, found.output.first_bad) == ("select_n", (1,))


def test_iterations_of_a_while_loop_and_the_branch_of_a_cond_are_gone_into():
    def f(x):
        def body(state):
            count, x = state
            with jax.named_scope("shrink"):
                return count + 1, lax.cond(count < 3, lambda x: x / 2, lambda x: jnp.log(-x), x)

        with jax.named_scope("solver"):
            return lax.while_loop(lambda state: state[0] < 6, body, (0, x))[1]

    found = find(f, jnp.float32(8.0))
    assert (found.path, found.primitive, found.inputs[0].least) == ("solver/3/shrink", "log", -1.0)


def test_integers_booleans_and_keys_pass_through():
    def f(key, count, flag):
        noise = jax.random.normal(key, (2,))
        return key, count + 1, ~flag, noise / jnp.where(flag, 0.0, 1.0)

    key = jax.random.key(0)
    assert first_nonfinite(f, key, jnp.int32(3), jnp.bool_(False)) is None
    assert find(f, key, jnp.int32(3), jnp.bool_(True)).primitive == "div"


def test_a_guarded_step_hides_its_fault_in_the_state_and_shows_it_when_asked():
    step, given = step_of(stack("custom_vjp"))

    def guarded(hparams, state, batch):
        after, _ = step(hparams, state, batch)
        is_sound = jnp.stack([jnp.isfinite(p).all() for p in jax.tree.leaves(after.params)]).all()
        return jax.tree.map(lambda a, b: jnp.where(is_sound, a, b), after.params, state.params)

    assert first_nonfinite(guarded, *given) is None
    found = find(guarded, *given, tested=True)
    assert (found.path, found.direction) == ("blocks/7/planted", "backward")


IMAGE, TOKENS = np.ones((2, 16, 16, 3), np.float32), np.arange(16).reshape(2, 8) % 5
ZOO = {
    "mlp": (models.mlp(models.MLPConfig(outputs=3, hidden=(8,))), IMAGE, train.classification),
    "cnn": (
        models.cnn(models.CNNConfig(outputs=3, features=(4,), dense=4)),
        IMAGE,
        train.classification,
    ),
    "resnet": (models.resnet(models.ResNetConfig(18, outputs=3)), IMAGE, train.classification),
    "gpt": (
        models.gpt(models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5, context=8)),
        TOKENS.astype(np.int32),
        train.language_model,
    ),
}


QUICK = ["mlp", "cnn", "gpt"]


@pytest.mark.parametrize("name", [*QUICK, pytest.param("resnet", marks=pytest.mark.soak)])
def test_a_healthy_step_of_every_model_has_no_finding(name: str):
    model, x, objective = ZOO[name]
    optimizer = optax.adam(0.01)
    state = train.init_state(model, optimizer, x)
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(TOKENS if name == "gpt" else [0, 1], jnp.int32)}
    step = train.make_train_step(objective(model), optimizer)
    assert first_nonfinite(step, {}, state, batch) is None


def test_nothing_is_left_in_a_step_by_looking_into_it():
    step, given = step_of(stack("none"))
    before = jax.jit(step).lower(*given).as_text()
    first_nonfinite(step, *given)
    jax.clear_caches()
    assert jax.jit(step).lower(*given).as_text() == before
    assert not jax.config.values["jax_debug_nans"]
