"""Inner loops against the unrolled Python loop, under every memory policy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import nn
from functorch_kit.transforms import TransformError, adapt, hypergradient

STEPS = 3

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")


def _tied(params, x):
    return jnp.tanh(x @ params["table"]) @ params["table"].T


def _model(model: nn.Model, train: bool) -> tuple[Any, Any]:
    params, state = model.init(jax.random.key(1), jnp.ones((1, 3)))
    state = jax.tree.map(lambda leaf: leaf + jnp.linspace(0.1, 0.7, leaf.size), state)

    def apply(params, x):
        key = jax.random.key(3) if train else None
        return model.apply(params, state, x, key=key, train=train)[0]

    return params, apply


def _nets() -> dict[str, tuple[Any, Any]]:
    norm = nn.serial(a=nn.dense(2), norm=nn.batch_norm(), act=nn.tanh, b=nn.dense(3))
    drop = nn.serial(a=nn.dense(2), act=nn.tanh, drop=nn.dropout(0.4), b=nn.dense(3))
    return {
        "tied": ({"table": jnp.linspace(-1, 1, 6).reshape(3, 2)}, _tied),
        "batch_norm": _model(norm, train=False),
        "dropout": _model(drop, train=True),
    }


def _loss_of(apply: Any) -> Any:
    def loss(params, batch):
        return jnp.mean((apply(params, batch["x"]) - batch["y"]) ** 2)

    return loss


def _batch(seed: int, *axes: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: jnp.asarray(generator.normal(size=(*axes, 4, 3))) for name in ("x", "y")}


def _adam(h):
    return optax.adamw(h["learning_rate"], weight_decay=h["decay"], eps_root=1e-8)


HPARAMS = {"learning_rate": 0.05, "decay": 0.1}


def _by_hand(loss, optimizer, params, batches, first_order=False, keep_from=0):
    """The loop as anyone would write it."""
    state, begun = optimizer.init(params), params
    for number, batch in enumerate(batches):
        gradient = jax.grad(loss)(params, batch)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        if number + 1 == keep_from:
            shift = jax.tree.map(lambda a, b: jax.lax.stop_gradient(a - b), params, begun)
            params = jax.tree.map(jnp.add, begun, shift)
            state = jax.lax.stop_gradient(state)
    return params


def _same(found: Any, expected: Any, atol: float = 1e-10) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("tied", {}),
        ("tied", {"memory": "remat"}),
        ("tied", {"memory": "truncated", "last": 2}),
        ("tied", {"first_order": True}),
        ("batch_norm", {"unroll": True}),
        ("dropout", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_parameters_and_all_gradients_are_those_of_the_unrolled_loop(
    x64: None, net: str, options: dict[str, Any]
):
    params, apply = _nets()[net]
    loss, support, query = _loss_of(apply), _batch(0), _batch(1)
    run = adapt(loss, _adam, STEPS, **options)

    def ours(params, hparams, support):
        return loss(run(params, support, hparams).params, query)

    def theirs(params, hparams, support):
        keep_from = STEPS - options["last"] if "last" in options else 0
        after = _by_hand(
            *(loss, _adam(hparams), params, [support] * STEPS),
            options.get("first_order", False),
            keep_from,
        )
        return loss(after, query)

    hparams = jax.tree.map(jnp.asarray, HPARAMS)
    found, expected = (
        jax.jit(jax.value_and_grad(each, (0, 1, 2)))(params, hparams, support)
        for each in (ours, theirs)
    )
    _same(found, expected)


@pytest.mark.parametrize("memory", ["keep", "remat"])
def test_a_batch_for_each_step_is_taken_in_order(x64: None, memory: str):
    params, apply = _nets()["tied"]
    loss, stack, query = _loss_of(apply), _batch(0, STEPS), _batch(1)
    run = adapt(loss, optax.sgd(0.1, momentum=0.9), STEPS, memory=memory, a_batch_each=True)
    batches = [jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(STEPS)]
    optimizer = optax.sgd(0.1, momentum=0.9)
    found, expected = (
        jax.jit(jax.value_and_grad(each))(params)
        for each in (
            lambda params: loss(run(params, stack).params, query),
            lambda params: loss(_by_hand(loss, optimizer, params, batches), query),
        )
    )
    _same(found, expected)
    losses = run(params, stack).losses
    assert losses.shape == (STEPS,)
    assert float(losses[0]) == pytest.approx(float(loss(params, batches[0])), abs=1e-14)


def test_tasks_side_by_side_equal_each_by_itself(x64: None):
    params, apply = _nets()["tied"]
    loss = _loss_of(apply)
    run = adapt(loss, optax.sgd(0.1), 3)
    supports, queries = _batch(0, 4), _batch(1, 4)

    def after(params, support, query):
        return loss(run(params, support).params, query)

    def meta(params):
        return jnp.mean(jax.vmap(after, (None, 0, 0))(params, supports, queries))

    found = jax.jit(jax.grad(meta))(params)
    slope = jax.jit(jax.grad(after))
    tasks = [jax.tree.map(lambda leaf, i=i: leaf[i], (supports, queries)) for i in range(4)]
    each = [slope(params, *task) for task in tasks]
    _same(found, jax.tree.map(lambda *leaves: sum(leaves) / 4, *each))


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_hypergradients_are_those_of_finite_differences(x64: None, mode: str):
    params, apply = _nets()["tied"]
    loss, stack, query = _loss_of(apply), _batch(0, STEPS), _batch(1)
    run = adapt(loss, _adam, STEPS, a_batch_each=True)

    def objective(hparams):
        return loss(run(params, stack, hparams).params, query)

    value, gradient = jax.jit(hypergradient(objective, mode=mode))(HPARAMS)
    assert float(value) == pytest.approx(float(objective(HPARAMS)), abs=1e-13)
    for name in HPARAMS:
        up, down = (objective(HPARAMS | {name: HPARAMS[name] + by}) for by in (1e-5, -1e-5))
        assert float(gradient[name]) == pytest.approx(float(up - down) / 2e-5, rel=1e-6)


def test_an_implicit_gradient_is_that_of_the_minimum_in_closed_form(x64: None):
    generator = np.random.default_rng(0)
    a, y, c = generator.normal(size=(9, 3)), generator.normal(size=9), generator.normal(size=3)

    def loss(w, batch):  # ridge regression
        return jnp.sum((a @ w - batch["y"]) ** 2) / 2 + batch["decay"] * jnp.sum(w**2) / 2

    run = adapt(loss, lambda h: optax.sgd(h["learning_rate"]), 3000, memory="implicit")

    def objective(w, decay, y, h):
        return c @ run(w, {"y": y, "decay": decay}, h).params

    hparams = {"learning_rate": 0.05}
    start, decay, target = jnp.ones(3), jnp.asarray(0.7), jnp.asarray(y)
    found = jax.jit(jax.grad(objective, (0, 1, 2, 3)))(start, decay, target, hparams)
    hessian = a.T @ a + 0.7 * np.eye(3)
    minimum = np.linalg.solve(hessian, a.T @ y)
    np.testing.assert_array_equal(found[0], 0)
    assert float(found[1]) == pytest.approx(-c @ np.linalg.solve(hessian, minimum), abs=1e-10)
    np.testing.assert_allclose(found[2], a @ np.linalg.solve(hessian, c), atol=1e-10)
    assert float(found[3]["learning_rate"]) == 0


def test_integers_in_a_batch_are_left_alone(x64: None):
    def loss(w, batch):
        return jnp.sum((w - batch["table"][batch["index"]]) ** 2)

    batch = {"table": jnp.array([1.0, 5.0]), "index": jnp.array(1)}
    for memory in ("keep", "implicit"):
        run = adapt(loss, optax.sgd(0.5), 1, memory=memory)
        slope = jax.grad(lambda t, run=run: run(0.0, batch | {"table": t}).params)(batch["table"])
        np.testing.assert_allclose(slope, [0.0, 1.0], atol=1e-12)


def _saved_bytes(memory: str, steps: int) -> int:
    """What the way there hands to the way back."""
    params, apply = {"table": jnp.ones((3, 50))}, _tied
    run = adapt(_loss_of(apply), optax.sgd(0.1), steps, memory=memory)
    batch = _batch(0)
    _, pull = jax.eval_shape(lambda p: jax.vjp(lambda p: run(p, batch).params, p), params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))


def test_remat_keeps_a_fraction_and_implicit_nothing_that_grows(x64: None):
    kept = {name: [_saved_bytes(name, n) for n in (16, 64)] for name in ("keep", "remat")}
    assert kept["keep"][1] > 3 * kept["keep"][0]
    assert kept["remat"][1] < 2.5 * kept["remat"][0]  # about the square root
    assert kept["remat"][1] < kept["keep"][1] / 3
    assert _saved_bytes("implicit", 64) == _saved_bytes("implicit", 16)


def test_a_loop_that_cannot_be_is_refused():
    def loss(w, x):
        return (w - x) ** 2

    refused: list[tuple[dict[str, Any], str]] = [
        ({"steps": 0}, "0 steps: give 1 or more"),
        ({"memory": "disk"}, "memory 'disk' is not one of"),
        ({"memory": "truncated"}, "last goes with memory='truncated'"),
        ({"last": 1}, "last goes with memory='truncated'"),
        ({"memory": "truncated", "last": 4}, "last is 4: give a number from 1 to 3"),
        ({"memory": "implicit", "first_order": True}, "needs one batch and second derivatives"),
    ]
    for options, expected in refused:
        chosen: dict[str, Any] = {"steps": 3} | options
        with pytest.raises(TransformError, match=expected):
            adapt(loss, optax.sgd(0.1), **chosen)
    with pytest.raises(TransformError, match="no function of them: pass lambda h"):
        adapt(loss, optax.sgd(0.1), 1)(jnp.ones(()), 0.0, {"learning_rate": 0.1})
    with pytest.raises(TransformError, match="a_batch_each wants a first axis of 3, the steps"):
        adapt(loss, optax.sgd(0.1), 3, a_batch_each=True)(jnp.ones(()), jnp.zeros(2))
    with pytest.raises(TransformError, match="mode 'both' is not"):
        hypergradient(lambda h: h, mode="both")
