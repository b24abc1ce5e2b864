"""Clipped sums against a loop that clips gradient by gradient, in float64."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import transforms
from functorch_kit.transforms import TransformError
from functorch_kit.transforms.sites import Meeting
from tests.transforms import cases

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module", params=cases.CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[cases.Case, list[np.ndarray]]]:
    with jax.enable_x64(True):
        made = cases.CASES[request.param]()
        yield made, cases.loop_gradients(made)


def _expected(each: list[np.ndarray], clip: float, kept: np.ndarray) -> list[np.ndarray]:
    norms = cases.norms_of(each)
    factors = np.where(norms > clip, clip / norms, 1.0) * kept
    return [np.tensordot(factors, leaf, 1) for leaf in each]


def _close(found: object, expected: list[np.ndarray]) -> None:
    for leaf, wanted in zip(jax.tree.leaves(found), expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("by_norm_rules", [True, False], ids=["norm_rules", "gradients"])
def test_the_sum_is_that_of_a_loop(
    case, by_norm_rules: bool, monkeypatch: pytest.MonkeyPatch, x64: None
):
    monkeypatch.setattr(Meeting, "needs_no_gradients", lambda self: by_norm_rules)
    made, each = case
    clip = float(np.median(cases.norms_of(each)))
    found = transforms.clipped_grad_sum(made.loss)(made.params, made.batch, clip)
    _close(found.grads, _expected(each, clip, np.ones(cases.EXAMPLES)))
    np.testing.assert_allclose(found.norms, cases.norms_of(each), atol=1e-10)
    assert found.drawn == cases.EXAMPLES


def test_a_poisson_sampled_batch_adds_only_those_who_were_drawn(x64: None):
    made = cases.tied_language_model()
    each = cases.loop_gradients(made)
    kept = np.array([1, 0, 0, 1, 1])
    found = transforms.clipped_grad_sum(made.loss, chunk=2)(
        made.params, made.batch, 0.5, jnp.array(kept)
    )
    _close(found.grads, _expected(each, 0.5, kept))
    assert found.drawn == 3
    assert (np.asarray(found.norms) == 0).tolist() == [False, True, True, False, False]


def test_places_without_an_example_may_hold_anything():
    def loss(params, x):
        return jnp.sum(jnp.log(x) @ params["kernel"] * params["scale"])

    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    clipped = transforms.clipped_grad_sum(loss)
    x = jnp.array([[1.0, 2.0], [-1.0, jnp.nan]])
    found = clipped(params, x, 1.0, jnp.array([True, False]))
    alone = clipped(params, x[:1], 1.0)
    for leaf, wanted in zip(*map(jax.tree.leaves, (found.grads, alone.grads)), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [0, 3])
def test_nobody_drawn_adds_up_to_zero(size: int):
    clipped = transforms.clipped_grad_sum(lambda w, x: jnp.tanh(w @ x))
    found = clipped(jnp.ones(2), jnp.ones((size, 2)), 1.0, jnp.zeros(size))
    assert found.grads.tolist() == [0, 0]
    assert found.drawn == 0
    assert found.norms.tolist() == [0] * size


def test_a_gradient_of_zero_stays_zero_and_finite():
    def loss(w, x):
        return jnp.sum((x @ w) ** 2)

    clipped = transforms.clipped_grad_sum(loss)
    found = clipped(jnp.ones((2, 2)), jnp.zeros((3, 2)), 1.0)
    assert jnp.all(found.grads == 0)
    # And the derivative of the sum, of which a norm of zero has none.
    assert jnp.all(jnp.isfinite(found.norms))


def test_a_gradient_within_the_norm_passes_bit_for_bit():
    clipped = transforms.clipped_grad_sum(lambda w, x: w @ x)
    x = jnp.array([[0.1, 0.7]])
    assert clipped(jnp.zeros(2), x, 1.0).grads.tolist() == x[0].tolist()


def test_the_norm_to_clip_at_may_be_traced():
    clipped = transforms.clipped_grad_sum(lambda w, x: w @ x)
    sums = jax.vmap(lambda clip: clipped(jnp.zeros(1), jnp.array([[4.0]]), clip).grads)
    assert sums(jnp.array([1.0, 8.0])).tolist() == [[1.0], [4.0]]


def test_no_gradient_of_a_large_matrix_is_materialised():
    """Examples times parameters are 64 MB; what the program holds is far less."""

    def loss(kernel, x):
        return jnp.sum(jnp.tanh(x @ kernel))

    clipped = transforms.clipped_grad_sum(loss)
    program = (
        jax.jit(lambda kernel, x: clipped(kernel, x, 1.0))
        .lower(jnp.ones((512, 256)), jnp.ones((128, 512)))
        .compile()
    )
    analysis = program.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 4_000_000


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_norm_that_is_not_positive_is_refused(clip: float):
    with pytest.raises(TransformError, match="give a norm above 0"):
        transforms.clipped_grad_sum(lambda w, x: w * x)(jnp.ones(()), jnp.ones(2), clip)
