"""Graphs that differ from example to example: batched by depth, in few programs."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import models, nn

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(0)
SMALL = models.TreeLSTMConfig(vocabulary=11, embedding=5, width=4, outputs=3)


def _random_tree(random: np.random.Generator, leaves: int, vocabulary: int = 11):
    """Any two neighbours are joined next, so that depths differ."""
    trees: list[Any] = [int(token) for token in random.integers(vocabulary, size=leaves)]
    while len(trees) > 1:
        at = int(random.integers(len(trees) - 1))
        trees[at : at + 2] = [(trees[at], trees[at + 1])]
    return trees[0]


def _filled(model: nn.Model, x, dtype: type = np.float64):
    random = np.random.default_rng(1)
    params, _ = jax.eval_shape(lambda: model.init(KEY, x))
    return jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape) / 2, dtype), params)


def _output_and_slope(apply, params, x):
    def value(params):
        y, _ = apply(params, (), x)
        return jnp.sum(jnp.sin(y)), y

    slope, y = jax.jit(jax.grad(value, has_aux=True))(params)
    return y, slope


def test_trees_batched_by_depth_are_trees_one_by_one_with_their_gradients(x64):
    random = np.random.default_rng(0)
    trees = [_random_tree(random, leaves) for leaves in (1, 2, 5, 7)]
    batched, plain = models.tree_lstm(SMALL), models.tree_lstm_one_by_one(SMALL)
    params = _filled(batched, models.forest(trees))
    expected = _output_and_slope(plain.apply, params, trees)
    for width in (1, 3, 64):
        got = _output_and_slope(batched.apply, params, models.forest(trees, width=width))
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-10, atol=1e-12)
        for a, b in zip(*map(jax.tree.leaves, (got[1], expected[1])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def _times(run, calls: int = 5) -> float:
    run()
    spent = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[calls // 2]


@pytest.mark.soak
def test_256_trees_of_32_leaves_are_the_same_within_1e_6_and_5_times_faster():
    """Against one compiled program that takes every tree in turn, a node at a time."""
    random = np.random.default_rng(0)
    config = models.TreeLSTMConfig(vocabulary=100)
    model = models.tree_lstm(config)
    trees = [_random_tree(random, 32, 100) for _ in range(256)]
    together = models.forest(trees)
    alone = [models.forest([tree], width=1) for tree in trees]
    assert len({each["op"].shape for each in alone}) == 1
    params = jax.tree.map(lambda p: 0.1 * p, _filled(model, together, np.float32))
    run = jax.jit(lambda p, x: model.apply(p, (), x)[0])

    def batched():
        return jax.block_until_ready(run(params, together))

    def one_by_one():
        return jnp.concatenate(jax.block_until_ready([run(params, each) for each in alone]))

    assert float(jnp.max(jnp.abs(batched() - one_by_one()))) <= 1e-6
    fast, slow = _times(batched), _times(one_by_one)
    print(f"batched {1e3 * fast:.0f} ms, tree by tree {1e3 * slow:.0f} ms: {slow / fast:.1f}")
    assert slow >= 5 * fast


def test_trees_that_are_one_token_each_are_run_by_the_same_program(x64):
    model, plain = models.tree_lstm(SMALL), models.tree_lstm_one_by_one(SMALL)
    x = models.forest([3, 4], width=2)
    params = _filled(model, models.forest([(1, 2)]))
    expected, _ = plain.apply(params, (), [3, 4])
    np.testing.assert_allclose(model.apply(params, (), x)[0], expected, rtol=1e-12)


def test_a_tree_may_be_deeper_than_pythons_stack():
    tree = 0
    for token in range(3000):
        tree = (tree, token % 11)
    x = models.forest([tree], width=4)
    assert (x["op"] >= 0).sum() == 3000 + 3001 // 4 + 1


def test_what_the_schedule_says_can_be_done_in_its_order():
    random = np.random.default_rng(0)
    x = models.forest([_random_tree(random, 9) for _ in range(20)], width=8)
    chunks, width = x["argument"].shape
    used = x["op"] == 1
    # A pair is made of what stands in earlier chunks.
    first_row = np.arange(chunks)[:, None, None] * width
    assert (x["inputs"][used] < np.broadcast_to(first_row, x["inputs"].shape)[used]).all()
    assert chunks == 1 << (chunks - 1).bit_length()
    assert len(set(x["root"].tolist())) == 20


FIND = [("find", word) for word in range(6)]


def _random_layout(random: np.random.Generator, depth: int):
    def below(depth: int):
        if depth == 0 or random.random() < 0.3:
            return FIND[random.integers(6)]
        name = ("relocate", "both", "either")[random.integers(3)]
        count = 1 if name == "relocate" else 2
        return (name, int(random.integers(6)), *(below(depth - 1) for _ in range(count)))

    return (("describe", "exists")[random.integers(2)], int(random.integers(6)), below(depth))


MODULES = models.ModuleNetworkConfig(words=6, width=5, outputs=4)


def test_layouts_in_a_batch_are_layouts_by_themselves(x64):
    random = np.random.default_rng(0)
    asked = [_random_layout(random, 3) for _ in range(6)]
    places = jnp.asarray(random.normal(size=(6, 4, 3)))
    model = models.module_network(MODULES)
    x = {**models.layouts(asked, width=4), "context": {"places": places}}
    params = _filled(model, x)
    run = jax.jit(lambda p, x: model.apply(p, (), x)[0])
    y = run(params, x)
    for row in range(6):
        one = {**models.layouts(asked[row : row + 1], width=4)}
        alone = run(params, one | {"context": {"places": places[row : row + 1]}})
        np.testing.assert_allclose(alone[0], y[row], rtol=1e-10)
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(run(p, x)))))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert all(leaf.any() for leaf in jax.tree.leaves(slopes["modules"]["find"]))


def test_the_modules_are_what_they_say(x64):
    """By hand: two places; both is a product, either a union, and exists sees the largest."""
    model = models.module_network(MODULES)
    asked = [("exists", 0, (join, 0, ("find", 1), ("find", 2))) for join in ("both", "either")]
    x = models.layouts(asked, width=2)
    places = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2, 3)))
    x = {**x, "context": {"places": jnp.repeat(places, 2, 0)}}
    params = _filled(model, x)
    y, _ = model.apply(params, (), x)
    find = params["modules"]["find"]
    seen = np.asarray(places[0] @ find["place"]["kernel"] + find["place"]["bias"][None])
    a, b = (
        1 / (1 + np.exp(-seen @ np.asarray(find["word"]["embedding"][word]) / np.sqrt(5)))
        for word in (1, 2)
    )
    answer = params["modules"]["exists"]["answer"]
    for row, joined in enumerate((a * b, a + b - a * b)):
        most = np.array([joined.max(), joined.mean()])
        np.testing.assert_allclose(y[row], most @ answer["kernel"] + answer["bias"], rtol=1e-10)


def test_the_module_network_is_compiled_a_bounded_number_of_times():
    """50 batches of 8 layouts, no two alike: a program for each power of two among their sizes."""
    random = np.random.default_rng(0)
    model = models.module_network(MODULES)
    places = jnp.ones((8, 4, 3))
    run = jax.jit(lambda p, x: model.apply(p, (), x)[0])
    params, sizes = None, set()
    for _ in range(50):
        batch = models.layouts([_random_layout(random, 3) for _ in range(8)], width=4)
        x = {**batch, "context": {"places": places}}
        params = _filled(model, x, np.float32) if params is None else params
        run(params, x)
        sizes.add(len(batch["op"]))
    compiled = run._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    assert compiled == len(sizes) <= 3
    assert all(size & (size - 1) == 0 for size in sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.forest([(1, 2, 3)]), "neither a token nor a pair"),
        (lambda: models.forest([True]), "neither a token nor a pair"),
        (lambda: models.forest([]), "there is no graph"),
        (lambda: models.schedule([[models.Node(0, (0,))]]), "inputs come first"),
        (lambda: models.schedule([[models.Node(0)]], width=0), "holds no node"),
        (
            lambda: models.schedule(
                [[models.Node(0), models.Node(1, (0, 0))]], width=2, most_inputs=1
            ),
            "2 inputs, more than most_inputs=1",
        ),
        (lambda: models.layouts([("find", 1)]), "'find' stands outermost"),
        (lambda: models.layouts([("exists", 1, ("describe", 0, FIND[0]))]), "'describe' stands in"),
        (lambda: models.layouts([("exists", 1, ("both", 0, FIND[0]))]), "no 'both' of 1"),
        (lambda: models.layouts([("exists", 1, ("fnd", 0))]), "no 'fnd' of 0: there are find of 0"),
        (lambda: models.tree_lstm(SMALL).init(KEY, {"op": jnp.zeros(1)}), "give what schedule"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(nn.LayerError, match=message):
        make()
