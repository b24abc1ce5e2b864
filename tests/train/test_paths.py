"""Optimizers by path: masks, factors, layer-wise decay, one optimizer for each part."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import train
from functorch_kit.train import PathError
from functorch_kit.types import path_name

# optax runs in most of these.
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

PARAMS = {
    "stem": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
    "blocks": {str(n): {"kernel": jnp.full((2, 2), 2.0)} for n in range(12)},
    "head": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def sizes(optimizer: optax.GradientTransformation, params: Any = PARAMS) -> dict[str, float]:
    """How far each leaf goes down for a gradient of ones; the same in all of its entries."""
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    assert all(np.ptp(leaf) == 0 for _, leaf in leaves)
    return {path_name(path): -float(leaf.ravel()[0]) for path, leaf in leaves}


def test_each_part_is_trained_by_its_own_optimizer():
    optimizer = train.by_path(
        {"**": optax.sgd(0.5), "head": optax.adam(0.1), "head/bias": optax.sgd(0.25)}
    )
    moved = sizes(optimizer)
    assert moved.pop("head/kernel") == pytest.approx(0.1, rel=1e-5)
    assert moved.pop("head/bias") == 0.25
    assert set(moved.values()) == {0.5}
    # Adam keeps two moments and a count, of its own part alone.
    shapes = [leaf.shape for leaf in jax.tree.leaves(optimizer.init(PARAMS))]
    assert sorted(shapes) == [(), (2, 2), (2, 2)]


def test_a_parameter_that_no_optimizer_trains_is_refused():
    optimizer = train.by_path({"stem": optax.sgd(0.1), "blocks": optax.sgd(0.1)})
    with pytest.raises(PathError, match="no optimizer for 'head/bias': add a pattern that names"):
        optimizer.init(PARAMS)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            train.by_path({"**": optax.sgd(0.1), "haed": optax.sgd(0.1)}),
            "by_path: 'haed' names nothing, did you mean 'head'",
        ),
        (
            train.scale_by_path({"block/0": 0.1}),
            "learning_rates: 'block/0' names nothing, did you mean 'blocks/0'",
        ),
        (
            train.scale_by_path(train.layer_decay(["stem", "block/*"], 0.5)),
            "layer_decay: 'block/[*]' names nothing",
        ),
        (
            train.named("adamw", learning_rate=0.1, no_decay=["**/bais"]),
            r"no_decay: '\*\*/bais' names nothing, did you mean '.*/bias'",
        ),
        (
            train.muon(0.1, stacked=["block"]),
            "muon stacked: 'block' names nothing, did you mean 'blocks'",
        ),
        (train.muon(0.1, adam=["hed"]), "muon adam: 'hed' names nothing, did you mean 'head'"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_path(
    optimizer: optax.GradientTransformation, message: str
):
    with pytest.raises(PathError, match=message) as caught:
        optimizer.init(PARAMS)
    assert "\n" not in str(caught.value)


def test_a_factor_scales_the_updates_of_its_path_and_weight_decay_with_them():
    factors = {"stem": 0.5, "stem/bias": 0.0, "blocks/*/kernel": 2.0}
    optimizer = optax.chain(
        optax.add_decayed_weights(0.25), optax.sgd(0.1), train.scale_by_path(factors)
    )
    moved = sizes(optimizer)
    step = 0.1 * (1 + 0.25 * 2)
    assert moved["stem/kernel"] == pytest.approx(0.5 * step)
    assert moved["stem/bias"] == 0
    assert moved["blocks/7/kernel"] == pytest.approx(2 * step)
    assert moved["head/kernel"] == pytest.approx(step)


def test_a_factor_may_be_traced_and_keeps_the_dtype_of_the_updates():
    def scaled(factor):
        updates = {"head": jnp.ones(2, jnp.bfloat16)}
        optimizer = train.scale_by_path({"head": factor})
        scaled: Any = optimizer.update(updates, optimizer.init(updates))[0]
        return scaled["head"]

    many = jax.vmap(scaled)(jnp.array([0.5, 2.0]))
    assert many.dtype == jnp.bfloat16
    assert many.tolist() == [[0.5, 0.5], [2.0, 2.0]]


def test_layer_wise_decay_falls_from_the_output_to_the_input_by_the_numbers_of_the_layers():
    decay = train.layer_decay([["stem/kernel", "stem/bias"], "blocks/*", "head"], 0.5)
    moved = sizes(optax.chain(optax.sgd(1.0), train.scale_by_path(decay)))
    assert moved["head/kernel"] == moved["head/bias"] == 1.0
    for number in range(12):
        assert moved[f"blocks/{number}/kernel"] == 0.5 ** (12 - number)
    assert moved["stem/kernel"] == moved["stem/bias"] == 0.5**13


def test_what_no_stage_names_learns_at_the_full_rate():
    moved = sizes(
        optax.chain(optax.sgd(1.0), train.scale_by_path(train.layer_decay(["stem", "head"], 0.5)))
    )
    assert (moved["stem/kernel"], moved["head/kernel"], moved["blocks/0/kernel"]) == (0.5, 1, 1)


@pytest.mark.parametrize("name", ["adamw", "lion", "lars", "adafactor", "sophia", "muon"])
def test_what_is_named_in_no_decay_does_not_decay(name: str):
    rate = {"adafactor": "weight_decay_rate"}.get(name, "weight_decay")
    settings: dict[str, Any] = {"learning_rate": 0.1, rate: 0.5}
    if name == "muon":
        settings["adam_weight_decay"] = 0.5

    def moved(**chosen: Any) -> dict[str, float]:
        optimizer = train.named(name, **chosen)
        zeros = jax.tree.map(jnp.zeros_like, PARAMS)
        extra = {"value_fn": lambda params: 0.0 * params["head"]["bias"].sum()}
        update = optax.with_extra_args_support(optimizer).update
        updates = jax.jit(lambda: update(zeros, optimizer.init(PARAMS), PARAMS, **extra)[0])()
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        return {path_name(path): float(jnp.abs(leaf).max()) for path, leaf in leaves}

    masked = moved(**settings, no_decay=["**/bias", "blocks"])
    free = moved(**settings)
    assert free["stem/bias"] > 1e-4
    for path, size in masked.items():
        decays = not path.endswith("bias") and "blocks" not in path
        assert size == pytest.approx(free[path] if decays else 0.0, abs=1e-7), path


def test_an_optimizer_without_a_mask_says_so():
    with pytest.raises(TypeError, match="sgd has no mask of its weight decay: leave no_decay out"):
        train.named("sgd", learning_rate=0.1, no_decay=["**/bias"])
