"""What does not do side by side what it does alone is named; what does is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from functorch_kit import nn, transforms
from functorch_kit.transforms import TransformError

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)


def _model(*parts: nn.Model):
    model = nn.serial(**{f"part_{at}": part for at, part in enumerate(parts)})
    params, state = model.init(jax.random.key(0), X)
    return lambda train: (
        lambda x: model.apply(params, state, x, key=jax.random.key(1), train=train)[0]
    )


def test_an_ordinary_function_is_the_same_side_by_side():
    report = transforms.check_lanes(lambda x: jax.nn.softmax(jnp.sin(x) @ jnp.eye(4)), X)
    assert report.differences == report.selects == ()
    assert str(report) == "side by side as alone"


def test_batch_norm_in_training_adds_over_the_examples_and_its_part_is_named():
    norm = _model(nn.dense(4), nn.batch_norm())
    found = transforms.check_lanes(norm(True), X, batched=True).differences
    assert {each.primitive for each in found} == {"reduce_sum"}
    assert all("part_1" in each.where for each in found)
    assert "adds over the examples" in str(found[0])


def test_batch_norm_in_evaluation_and_layer_norm_do_not():
    norms = _model(nn.dense(4), nn.batch_norm(), nn.layer_norm(), nn.relu)
    assert transforms.check_lanes(norms(False), X, batched=True).differences == ()


def test_dropout_of_a_batch_draws_other_numbers_than_batches_of_one():
    drop = _model(nn.dense(4), nn.dropout(0.5))
    (found,) = transforms.check_lanes(drop(True), X, batched=True).differences
    assert "other random numbers" in found.what
    assert "part_1" in found.where


def test_a_maximum_over_the_examples_is_found():
    report = transforms.check_lanes(lambda x: x / jnp.max(x), X, batched=True)
    assert [each.primitive for each in report.differences] == ["reduce_max"]


def test_attention_between_examples_is_found():
    report = transforms.check_lanes(lambda x: jax.nn.softmax(x @ x.T) @ x, X, batched=True)
    assert report.differences


def test_keys_whose_generator_draws_for_all_lanes_at_once_are_found():
    def noisy(example):
        return example["x"] + jax.random.normal(example["key"], (4,))

    for impl, count in (("threefry2x32", 0), ("rbg", 1)):
        keys = jax.random.split(jax.random.key(0, impl=impl), 3)
        found = transforms.check_lanes(noisy, {"x": X, "key": keys}).differences
        assert bool(found) == bool(count), (impl, found)
        assert all("other random numbers" in each.what for each in found)


def test_a_batching_rule_that_is_not_the_function_is_found():
    @jax.custom_batching.custom_vmap
    def doubled(x):
        return 2 * x

    @doubled.def_vmap
    def rule(axis_size, in_batched, x):
        return 3 * x, True

    (found,) = transforms.check_lanes(lambda x: doubled(x) + 1, X).differences
    assert "custom_vmap" in found.primitive


def _halved(x):
    return lax.while_loop(lambda x: x > 1, lambda x: x / 2, x)


@pytest.mark.parametrize(
    ("function", "selects"),
    [
        (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), ["cond"]),
        (lambda x: lax.cond(True, jnp.sin, jnp.cos, x), []),
        (lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, jnp.tan, jnp.exp], x), ["cond"]),
        (lambda x: _halved(jnp.sum(x)), ["while"]),
        (lambda x: lax.fori_loop(0, 3, lambda _, x: 2 * x, x), []),
        (lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 2), (0, x)), []),
        # The condition depends on the example from the second round on only.
        (
            lambda x: lax.while_loop(
                lambda s: s[0] < 3.0, lambda s: (s[1], s[2], s[2] + 1), (0.0, 1.0, x[0] ** 2)
            )[0],
            ["while"],
        ),
        (
            lambda x: lax.scan(
                lambda c, row: (lax.cond(c > 0, lambda c: c - 1, lambda c: c + row, c), c), 0.0, x
            ),
            ["cond"],
        ),
        (
            lambda x: lax.scan(
                lambda c, row: (c + 1, lax.cond(c > 1, jnp.sin, jnp.cos, row)), 0, x
            )[1],
            [],
        ),
        (lambda x: jax.jit(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))(x), ["cond"]),
    ],
)
def test_branches_and_loops_that_depend_on_the_example_become_selects(function, selects: list[str]):
    report = transforms.check_lanes(function, X)
    assert [each.primitive for each in report.selects] == selects
    assert report.differences == ()
    assert all("test_lanes.py" in each.where for each in report.selects)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: transforms.check_lanes(jnp.sin, X[:1]), "a batch of 1"),
        (lambda: transforms.check_lanes(jnp.sin, {"a": X, "b": X[:2]}), "batch: b has shape"),
        (
            lambda: transforms.check_lanes(
                lambda x: jnp.sin(x) if len(x) > 1 else jnp.cos(x), X, batched=True
            ),
            "another way from sin",
        ),
    ],
)
def test_a_batch_that_cannot_be_compared_is_refused(call, told: str):
    with pytest.raises(TransformError) as error:
        call()
    assert told in str(error.value)
