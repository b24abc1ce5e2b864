"""FLOPs of whole computations within 1 % of their closed forms, worked by hand."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

from functorch_kit import program

F32 = jnp.float32


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, F32)


def attention(w, x):
    """Multi-head self-attention with its four projections."""
    batch, length, width = x.shape
    heads = w["query"].shape[1]
    q, k, v = (jnp.einsum("btd,dhk->bthk", x, w[name]) for name in ("query", "key", "value"))
    scores = jnp.einsum("bqhk,bshk->bhqs", q, k) * (width // heads) ** -0.5
    mixed = jnp.einsum("bhqs,bshk->bqhk", jax.nn.softmax(scores), v)
    return mixed.reshape(batch, length, width) @ w["out"]


BATCH, LENGTH, WIDTH, HEADS = 4, 128, 256, 4
WEIGHTS = {
    **dict.fromkeys(("query", "key", "value"), spec(WIDTH, HEADS, WIDTH // HEADS)),
    "out": spec(WIDTH, WIDTH),
}
# Four projections of T x D by D x D, and two products of T x T by T x D over all heads.
PROJECTIONS = 4 * 2 * BATCH * LENGTH * WIDTH**2
SCORES = 2 * 2 * BATCH * LENGTH**2 * WIDTH
# The scores are scaled, and softmax takes max, difference, exp, sum and quotient of each.
SOFTMAX = 6 * BATCH * HEADS * LENGTH**2


def test_attention_forward_is_within_1_percent_of_8btd2_plus_4bt2d():
    counted = program.flops(attention, WEIGHTS, spec(BATCH, LENGTH, WIDTH))
    assert counted == pytest.approx(PROJECTIONS + SCORES + SOFTMAX, rel=0.01)


def test_attention_forward_and_backward_is_within_1_percent_of_three_forwards():
    def loss(w, x):
        return attention(w, x).sum()

    counted = program.flops(
        jax.value_and_grad(loss, argnums=(0, 1)), WEIGHTS, spec(BATCH, LENGTH, WIDTH)
    )
    # Backward each product is two. Of the softmax: scale, quotient and its derivative.
    assert counted == pytest.approx(3 * (PROJECTIONS + SCORES) + 2 * SOFTMAX, rel=0.01)


def test_a_mlp_train_step_is_within_1_percent_of_its_products_and_its_optimizer(
    standard_promotion,
):
    batch, sizes = 256, (784, 512, 256, 10)
    layers = list(itertools.pairwise(sizes))
    params = [{"w": spec(i, o), "b": spec(o)} for i, o in layers]
    optimizer = optax.adam(1e-3)

    def loss(params, x, y):
        for number, layer in enumerate(params):
            x = x @ layer["w"] + layer["b"][None]
            x = jax.nn.relu(x) if number + 1 < len(params) else x
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    def step(params, state, x, y):
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    state = jax.eval_shape(optimizer.init, params)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    counted = program.flops(step, params, state, spec(batch, sizes[0]), labels)
    products = sum(2 * batch * i * o for i, o in layers)
    first_input = 2 * batch * layers[0][0] * layers[0][1]  # nobody asks for the data's gradient
    count = sum(i * o + o for i, o in layers)
    # Adam: two moments of about 4 operations, two corrections, root, quotient, rate, sum.
    assert counted == pytest.approx(3 * products - first_input + 14 * count, rel=0.01)
