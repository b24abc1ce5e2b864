"""Per-example gradients and their statistics against a Python loop of ``jax.grad`` in float64."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import transforms
from functorch_kit.transforms import TransformError
from tests.transforms import cases

ALL = ("losses", "grads", "norms", "mean", "variance", "noise_scale")

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module", params=cases.CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[cases.Case, list[np.ndarray]]]:
    with jax.enable_x64(True):
        made = cases.CASES[request.param]()
        yield made, cases.loop_gradients(made)


def _close(found: object, expected: list[np.ndarray]) -> None:
    leaves = jax.tree.leaves(found)
    assert len(leaves) == len(expected)
    for leaf, wanted in zip(leaves, expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=0, atol=1e-10)


def test_every_statistic_is_that_of_a_loop_over_the_examples(case, x64: None):
    made, each = case
    found = transforms.per_example(made.loss, ALL)(made.params, made.batch)
    _close(found["grads"], each)
    _close(found["norms"], [cases.norms_of(each)])
    _close(found["mean"], [leaf.mean(0) for leaf in each])
    _close(found["variance"], [leaf.var(0, ddof=1) for leaf in each])
    trace = sum(leaf.var(0, ddof=1).sum() for leaf in each)
    squared = sum((leaf.mean(0) ** 2).sum() for leaf in each) - trace / cases.EXAMPLES
    scale = found["noise_scale"]
    wanted = [np.asarray(value) for value in (trace, squared, trace / squared)]
    _close([scale.trace, scale.squared_norm, scale.scale], wanted)
    losses = [
        made.loss(made.params, jax.tree.map(lambda leaf, at=at: leaf[at], made.batch))
        for at in range(2)
    ]
    _close(found["losses"][:2], [np.array(losses)])


@pytest.mark.parametrize("name", ["mlp_with_dropout", "odd_uses"])
def test_chunks_change_nothing_but_rounding(name: str, x64: None):
    made = cases.CASES[name]()
    each = cases.loop_gradients(made)
    found = transforms.per_example(made.loss, ("grads", "variance", "norms"), chunk=2)
    got = found(made.params, made.batch)
    _close(got["grads"], each)
    _close(got["variance"], [leaf.var(0, ddof=1) for leaf in each])
    _close(got["norms"], [cases.norms_of(each)])


def test_masked_examples_count_for_nothing_whatever_they_hold(x64: None):
    made = cases.cnn_with_batch_norm()
    each = [leaf[[0, 2, 3]] for leaf in cases.loop_gradients(made)]
    x = made.batch["x"].at[jnp.array([1, 4])].set(jnp.nan)
    measure = transforms.per_example(made.loss, ALL)
    found = measure(made.params, {**made.batch, "x": x}, jnp.array([1, 0, 1, 1, 0]))
    _close(found["mean"], [leaf.mean(0) for leaf in each])
    _close(found["variance"], [leaf.var(0, ddof=1) for leaf in each])
    norms = cases.norms_of(each)
    _close(found["norms"], [np.array([norms[0], 0, norms[1], norms[2], 0])])
    assert found["losses"][1] == 0
    assert np.isfinite(found["noise_scale"].scale)


def test_a_product_that_the_loss_does_not_need_is_no_use_of_its_parameter():
    def loss(w, x):
        _ = x @ w
        return jnp.sum(w**2)

    grads = transforms.per_example(loss)(jnp.array([3.0, 4.0]), jnp.ones((2, 2)))["grads"]
    assert grads.tolist() == [[6.0, 8.0], [6.0, 8.0]]


def test_an_empty_batch_has_rows_of_none_and_sums_of_zero():
    measure = transforms.per_example(lambda w, x: w @ x, ("grads", "norms", "mean"))
    found = measure(jnp.ones(3), jnp.zeros((0, 3)))
    assert found["grads"].shape == (0, 3)
    assert found["norms"].shape == (0,)
    assert found["mean"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("stats", [("norms", "mean"), ("variance",)])
def test_memory_of_reductions_is_flat_in_the_batch_size(stats: tuple[str, ...]):
    def loss(params, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]))

    params = {"a": _ones(64, 256), "b": _ones(256, 16)}
    measure = transforms.per_example(loss, stats, memory=2_000_000)

    def held(size: int) -> int:
        program = jax.jit(measure).lower(params, _ones(size, 8, 64)).compile()
        analysis = program.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    small, large = held(64), held(512)
    assert small <= 4_000_000
    # Of a batch, gradients are 42 MB at 512 examples. The batch itself, 1 MB, may be copied.
    assert large - small <= 4 * 512 * 8 * 64 * 4


def _ones(*shape: int) -> jax.Array:
    return jnp.ones(shape, jnp.float32)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: transforms.per_example(jnp.sum, ()), "stats is empty"),
        (lambda: transforms.per_example(jnp.sum, ("grad",)), "no stat 'grad'"),
        (lambda: transforms.per_example(jnp.sum, memory=0), "memory=0"),
        (lambda: transforms.per_example(jnp.sum, chunk=0), "chunk=0"),
        (
            lambda: transforms.per_example(lambda w, x: w * x)(_ones(2), _ones(3, 2)),
            "gives float32[2] for one example",
        ),
        (
            lambda: transforms.per_example(lambda w, x: x)(
                {"w": jnp.arange(2, dtype="int32")}, _ones(3)
            ),
            "params: w is int32",
        ),
        (
            lambda: transforms.per_example(lambda w, x: w)(
                jnp.ones(()), {"x": jnp.ones(3), "y": jnp.ones(4)}
            ),
            "batch: y has shape (4,)",
        ),
        (
            lambda: transforms.per_example(lambda w, x: w)(jnp.ones(()), jnp.ones(3), jnp.ones(2)),
            "mask has shape (2,)",
        ),
        (lambda: transforms.per_example(lambda w, x: w)(jnp.ones(()), ()), "no arrays"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(call, told: str):
    with pytest.raises(TransformError) as error:
        call()
    assert told in str(error.value)
    assert "\n" not in str(error.value)
