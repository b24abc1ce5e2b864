from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn
from functorch_kit.train import apply_named, example_keys

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RANDOM = np.random.default_rng(0)
X = {
    "image": jnp.asarray(RANDOM.normal(size=(6, 3, 2)), jnp.float32),
    "tokens": jnp.asarray(RANDOM.integers(0, 9, (6, 4))),
}


def _data(keys) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def test_in_evaluation_an_example_draws_alike_in_any_batch_and_place(maybe_jit):
    run = maybe_jit(lambda x: example_keys(None, x, train=False))
    order = np.array([4, 0, 2])
    whole, some = run(X), run(jax.tree.map(lambda leaf: leaf[order], X))
    np.testing.assert_array_equal(_data(whole)[order], _data(some))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32, jnp.int32, bool])
def test_examples_that_differ_at_all_draw_apart(dtype):
    # Each is the first with one number changed, or two exchanged.
    x = np.tile(np.array([[0, 1, 1, 0, 0, 1, 0, 1]]), (12, 1))
    for row in range(1, 9):
        x[row, row - 1] = 1 - x[row, row - 1]
    x[9], x[10] = x[0, [1, 0, 2, 3, 4, 5, 6, 7]], x[0, [0, 2, 3, 1, 4, 5, 6, 7]]
    keys = _data(example_keys(None, jnp.asarray(x, dtype), train=False))
    distinct = len(np.unique(x, axis=0))
    assert len(np.unique(keys, axis=0)) == distinct == 11


def test_another_key_is_another_draw_in_evaluation_too():
    one, other = (_data(example_keys(key, X, train=False)) for key in (None, jax.random.key(1)))
    assert (one != other).any(1).all()


def test_in_training_keys_follow_from_the_step():
    one, same, other = (_data(example_keys(jax.random.key(s), X, train=True)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 12
    equal = jax.tree.map(jnp.zeros_like, X)
    assert len(np.unique(_data(example_keys(jax.random.key(0), equal, train=True)), axis=0)) == 6


def test_training_without_a_key_is_refused():
    with pytest.raises(ValueError, match="draws at random: pass key= when train=True"):
        example_keys(None, X, train=True)


def test_a_part_changes_its_own_state_and_leaves_the_others():
    norm = nn.batch_norm()
    _, state = norm.init(jax.random.key(0), jnp.ones((2, 3)))
    params = {"a": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    x = jnp.asarray(RANDOM.normal(size=(2, 3)), jnp.float32)
    _, after = apply_named("a", norm, params, {"a": state, "b": state}, x, None, True)
    assert jax.tree.structure(after) == jax.tree.structure({"a": state, "b": state})
    assert (after["a"]["mean"] != 0).all()
    assert (after["b"]["mean"] == 0).all()
    _, after = apply_named("c", nn.relu, {}, {"b": state}, x, None, True)
    assert list(after) == ["b"]
