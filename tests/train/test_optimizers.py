"""Clipping, Muon, schedule-free, SAM and those that need the loss as a function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from functorch_kit import data, nn, train
from functorch_kit.errors import UserError
from functorch_kit.train.options import Options

# optax runs in all of these.
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

SCALES = np.array([1.0, 4.0])


def loss(weight: jax.Array) -> jax.Array:
    return 0.5 * (jnp.asarray(SCALES, weight.dtype) * weight**2).sum()


def run(optimizer: Any, steps: int, weight: Any = (1.0, 1.0)) -> tuple[jax.Array, Any]:
    weight = jnp.array(weight)
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(weight)
    for _ in range(steps):
        gradient = jax.grad(loss)(weight)
        update, state = optimizer.update(gradient, state, weight, grad_fn=jax.grad(loss))
        weight = optax.apply_updates(weight, update)
    return weight, state


def clipped(gradient: Any, params: Any = None, **limits: Any) -> Any:
    clip = train.clip(**limits)
    return clip.update(gradient, clip.init(gradient), params)[0]


def test_a_gradient_is_clipped_to_its_global_norm_as_a_whole():
    gradient = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    small = clipped(gradient, norm=1.0)
    np.testing.assert_allclose(small["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(small["b"], [[0.8]], rtol=1e-6)
    same = clipped(gradient, norm=5.5)
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), same, gradient))
    zero = clipped(jax.tree.map(jnp.zeros_like, gradient), norm=1.0)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(zero))


def test_values_are_clipped_before_the_norm_so_that_the_norm_holds():
    out = clipped(jnp.array([30.0, 4.0]), value=4.0, norm=1.0)
    np.testing.assert_allclose(out, [2**-0.5, 2**-0.5], rtol=1e-6)


def test_adaptive_clipping_is_relative_to_the_weights_of_each_output():
    weights = jnp.array([[3.0, 0.0], [4.0, 0.0]])  # norms 5 and 0, which counts as 0.001
    out = clipped(jnp.full((2, 2), 1.0), weights, adaptive=0.1)
    np.testing.assert_allclose(out[:, 0], [0.5 / 2**0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(out[:, 1], [1e-4 / 2**0.5] * 2, rtol=1e-6)


def test_a_limit_may_be_traced():
    norms = jax.vmap(lambda limit: jnp.linalg.norm(clipped(jnp.array([3.0, 4.0]), norm=limit)))
    np.testing.assert_allclose(norms(jnp.array([1.0, 2.0, 9.0])), [1, 2, 5], rtol=1e-6)


def test_muon_makes_hidden_matrices_orthogonal_and_leaves_the_rest_to_adam():
    random = np.random.default_rng(0)
    params = {
        "token": {"embedding": jnp.ones((4, 6))},
        "up": {"kernel": jnp.ones((6, 8)), "bias": jnp.ones(8)},
        "stack": {"kernel": jnp.ones((3, 6, 6)), "scale": jnp.ones((3, 6))},
        "conv": {"kernel": jnp.ones((3, 3, 2, 4))},
        "head": {"kernel": jnp.ones((8, 4))},
    }
    gradient = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), params)
    optimizer = train.muon(1.0, adam_learning_rate=0.1, stacked=["stack"], nesterov=False)
    update, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    for matrix in (update["up"]["kernel"], *update["stack"]["kernel"]):
        widen = max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
        singular = np.linalg.svd(matrix, compute_uv=False) / widen
        assert 0.6 < singular.min() <= singular.max() < 1.3  # Newton-Schulz of five steps
    for leaf in (
        update["token"]["embedding"], update["up"]["bias"], update["conv"]["kernel"],
        update["head"]["kernel"], update["stack"]["scale"],
    ):  # fmt: skip
        np.testing.assert_allclose(np.abs(leaf), 0.1, rtol=1e-4)  # Adam's first step


def test_muon_is_that_of_optax_where_all_matrices_are_hidden():
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(3.0)}
    settings: dict[str, Any] = {"adam_b1": 0.8, "adam_weight_decay": 0.1, "weight_decay": 0.2}
    ours, theirs = train.muon(0.1, **settings), contrib.muon(0.1, **settings)
    states = ours.init(params), theirs.init(params)
    our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(3):
        mine, first = our_update(params, states[0], params)
        other, second = their_update(params, states[1], params)
        states = first, second
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), mine, other)


def test_muon_refuses_a_model_without_hidden_matrices():
    with pytest.raises(UserError, match="muon: no parameter is a hidden matrix: give it a model"):
        train.muon(0.1).init({"head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            train.schedule_free_sgd(0.1, b1=0.8, weight_decay=0.1),
            contrib.schedule_free_sgd(0.1, b1=0.8, weight_decay=0.1),
        ),
        (
            train.schedule_free_adamw(0.1, b2=0.9, weight_decay=0.1),
            contrib.schedule_free_adamw(0.1, b2=0.9, weight_decay=0.1),
        ),
    ],
)
def test_a_schedule_free_optimizer_is_that_of_optax(ours: Any, theirs: Any):
    np.testing.assert_allclose(run(ours, 5)[0], run(theirs, 5)[0], rtol=1e-6)


def test_a_schedule_free_optimizer_warms_up_by_any_schedule():
    warm = train.schedules.constant(0.1, warmup_steps=4)
    ours = run(train.schedule_free_sgd(warm), 6)[0]
    theirs = run(contrib.schedule_free_sgd(0.1, warmup_steps=4), 6)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def linear_state(optimizer: Any, options: Options | None = None) -> train.TrainState:
    return train.init_state(nn.dense(1), optimizer, jnp.ones((4, 2)), options=options)


def test_schedule_free_evaluates_the_mean_of_its_iterates():
    # z goes by -0.5 a step from 0 under a gradient of 1; the average weighs all steps the same.
    optimizer = optax.chain(optax.identity(), train.schedule_free_sgd(0.5, b1=0.9))
    state = linear_state(optimizer)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    params: Any
    params, opt_state = zeros, optimizer.init(zeros)
    for _ in range(4):
        update, opt_state = optimizer.update(jax.tree.map(jnp.ones_like, zeros), opt_state, params)
        params = optax.apply_updates(params, update)
    average = train.schedule_free_params(state.replace(params=params, opt_state=opt_state))
    mean = np.mean([-0.5, -1.0, -1.5, -2.0])
    np.testing.assert_allclose(average["kernel"], np.full((2, 1), mean), rtol=1e-6)
    np.testing.assert_allclose(params["kernel"], np.full((2, 1), 0.9 * mean - 0.1 * 2), rtol=1e-6)


def test_frozen_parameters_are_their_own_schedule_free_average():
    options = Options(frozen=("bias",))
    state = linear_state(train.schedule_free_sgd(0.5), options)
    average = train.schedule_free_params(state)
    assert average["bias"] is state.params["bias"]
    np.testing.assert_allclose(average["kernel"], state.params["kernel"], rtol=1e-5)


def test_a_part_may_be_trained_schedule_free_and_the_rest_in_another_way():
    optimizer = train.by_path({"kernel": train.schedule_free_sgd(0.5), "bias": optax.sgd(0.1)})
    state = linear_state(optimizer)
    ones = jax.tree.map(jnp.ones_like, state.params)
    _, opt_state = optimizer.update(ones, state.opt_state, state.params)
    moved = state.replace(params=ones, opt_state=opt_state)
    average = train.schedule_free_params(moved)
    assert average["bias"] is moved.params["bias"]
    z = np.asarray(state.params["kernel"]) - 0.5
    np.testing.assert_allclose(average["kernel"], (1 - 0.1 * z) / 0.9, rtol=1e-5)


def test_parameters_without_an_average_are_refused():
    with pytest.raises(UserError, match="holds 0 schedule-free ones: it is for an"):
        train.schedule_free_params(linear_state(optax.sgd(0.1)))


def test_sam_descends_by_the_gradient_at_the_worst_point_near_by(x64: None):
    weight = np.array([1.0, 1.0])
    for _ in range(3):
        gradient = SCALES * weight
        worst = weight + 0.2 * gradient / np.linalg.norm(gradient)
        weight = weight - 0.1 * SCALES * worst
    np.testing.assert_allclose(run(train.sam(optax.sgd(0.1), 0.2), 3)[0], weight, rtol=1e-12)
    every_other = train.sam(optax.sgd(0.1), 0.2, every_other_step=True)
    np.testing.assert_allclose(run(every_other, 6)[0], weight, rtol=1e-12)


def test_sam_stays_finite_where_the_gradient_is_zero():
    assert run(train.sam(optax.sgd(0.1)), 2, (0.0, 0.0))[0].tolist() == [0.0, 0.0]


def test_sam_without_the_gradient_as_a_function_says_what_it_needs():
    optimizer = train.sam(optax.sgd(0.1))
    with pytest.raises(UserError, match="sam: the step passes no grad_fn: pass grad_fn="):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))


@pytest.fixture(scope="module")
def regression() -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]]) + 0.25).astype(np.float32)
    return data.arrays(x, y, batch_size=32, validation=0, test=0)


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "steps", "below"),
    [
        (optax.lbfgs(), 2, 12, 1e-6),  # a quadratic of four unknowns
        (train.named("polyak_sgd"), 1, 60, 1e-3),
        (train.named("momo"), 1, 60, 0.1),
        (train.named("sophia", learning_rate=0.02), 1, 200, 0.1),
        (train.named("sam", learning_rate=0.2, radius=0.001), 2, 60, 1e-3),
    ],
    ids=["lbfgs", "polyak_sgd", "momo", "sophia", "sam"],
)
def test_optimizers_that_need_the_loss_get_it_from_the_train_step(
    regression: Any, optimizer: Any, accumulate: int, steps: int, below: float
):
    model, options = nn.dense(1), Options(accumulate=accumulate)
    objective = train.regression(model)
    batch = regression.train(0)
    state = train.init_state(model, optimizer, batch["x"], options=options)
    step = jax.jit(train.make_train_step(objective, optimizer, options))
    losses = []
    for _ in range(steps):
        state, metrics = step({}, state, batch)
        losses.append(float(metrics["loss"].compute()))
    assert losses[-1] < below < losses[0]


def test_sam_leaves_the_statistics_of_batch_norm_at_the_parameters(regression: Any):
    model = nn.serial(norm=nn.batch_norm(), head=nn.dense(1))
    batch = regression.train(0)

    def after(optimizer: Any) -> Any:
        state = train.init_state(model, optimizer, batch["x"])
        step = jax.jit(train.make_train_step(train.regression(model), optimizer))
        return step({}, state, batch)[0].model_state

    plain, sharp = after(optax.sgd(0.1)), after(train.sam(optax.sgd(0.1), 1.0))
    jax.tree.map(np.testing.assert_array_equal, plain, sharp)
