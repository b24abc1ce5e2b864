"""Operations are counted as the closed forms have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import program
from functorch_kit.program.scopes import join, path_of, prefixes

F32 = jnp.float32


def spec(*shape: int, dtype=F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, w, strides=(1, 1), padding="SAME", groups=1):
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        padding,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


# Closed forms, worked by hand: 2 x multiply-adds ------------------------------------------------


def test_a_dense_layer_counts_two_per_multiply_add_and_one_per_bias():
    def dense(x, w, b):
        return x @ w + b[None]

    assert program.flops(dense, spec(64, 100), spec(100, 10), spec(10)) == 2 * 64 * 100 * 10 + 640


def test_a_batched_product_counts_each_of_its_products():
    def attend(q, k):
        return jnp.einsum("bqhd,bkhd->bhqk", q, k)

    # 2 sequences, 4 heads, 16 x 16 scores of 8 products each.
    assert program.flops(attend, spec(2, 16, 4, 8), spec(2, 16, 4, 8)) == 2 * (2 * 4 * 16 * 16 * 8)


def test_vmap_and_the_batched_product_count_the_same():
    product = jax.vmap(jnp.matmul)
    assert program.flops(product, spec(5, 3, 4), spec(5, 4, 6)) == 2 * 5 * 3 * 4 * 6


@pytest.mark.parametrize(
    ("x", "w", "options", "multiply_adds"),
    [
        pytest.param((8, 28, 28, 1), (3, 3, 1, 32), {}, 8 * 28 * 28 * 32 * 9, id="same"),
        pytest.param(
            (8, 28, 28, 1), (3, 3, 1, 32), {"padding": "VALID"}, 8 * 26 * 26 * 32 * 9, id="valid"
        ),
        pytest.param(
            (2, 32, 32, 3), (3, 3, 3, 8), {"strides": (2, 2)}, 2 * 16 * 16 * 8 * 27, id="stride"
        ),
        pytest.param(
            (2, 9, 7, 4), (3, 2, 4, 6), {"strides": (2, 3), "padding": "VALID"},
            2 * 4 * 2 * 6 * 24, id="valid and stride",
        ),
        pytest.param((2, 8, 8, 12), (3, 3, 4, 6), {"groups": 3}, 2 * 64 * 6 * 9 * 4, id="groups"),
        pytest.param((2, 8, 8, 16), (3, 3, 1, 16), {"groups": 16}, 2 * 64 * 16 * 9, id="depthwise"),
        pytest.param((1, 224, 224, 3), (7, 7, 3, 64), {"strides": (2, 2)},
                     112 * 112 * 64 * 7 * 7 * 3, id="the stem of ResNet-18"),
    ],
)  # fmt: skip
class TestConvolution:
    def test_forward(self, x, w, options, multiply_adds):
        assert program.flops(lambda x, w: conv(x, w, **options), spec(*x), spec(*w)) == (
            2 * multiply_adds
        )

    def test_each_gradient_costs_what_the_convolution_costs(self, x, w, options, multiply_adds):
        y = jax.eval_shape(lambda x, w: conv(x, w, **options), spec(*x), spec(*w))

        def pull_back(x, w, y):
            return jax.vjp(lambda x, w: conv(x, w, **options), x, w)[1](y)

        counted = program.flops(pull_back, spec(*x), spec(*w), y)
        assert counted == pytest.approx(3 * 2 * multiply_adds, rel=0.07)
        if options.get("padding") == "VALID" or options.get("strides", (1, 1)) == (1, 1):
            assert counted == 3 * 2 * multiply_adds


def test_a_backward_pass_costs_twice_the_forward_less_the_first_input_gradient():
    batch, inputs, hidden, outputs = 32, 20, 16, 4

    def loss(params, x):
        return (x @ params["one"] @ params["two"]).sum()

    params = {"one": spec(inputs, hidden), "two": spec(hidden, outputs)}
    one, two = 2 * batch * inputs * hidden, 2 * batch * hidden * outputs
    counted = program.flops(jax.value_and_grad(loss), params, spec(batch, inputs))
    assert counted == 3 * (one + two) - one + batch * outputs  # the last: the sum itself


def test_elementwise_counts_outputs_and_reductions_count_inputs():
    assert program.flops(lambda x: jnp.exp(x) + x, spec(3, 5)) == 2 * 15
    assert program.flops(lambda x: x.sum(0), spec(3, 5)) == 15
    assert program.flops(lambda x: jnp.max(x), spec(3, 5)) == 15
    assert program.flops(lambda x: jnp.argmax(x, -1), spec(3, 5)) == 15


def test_moving_data_and_counting_in_integers_are_no_floating_point_operations():
    def move(x, i):
        return jnp.concatenate([x.T, x.reshape(5, 3)[::-1]]).astype(jnp.bfloat16), i * 2 + 1

    assert program.flops(move, spec(3, 5), spec(7, dtype=jnp.int32)) == 0
    assert program.flops(lambda x, i: x[i], spec(3, 5), spec(2, dtype=jnp.int32)) == 0


def test_an_average_pool_counts_its_window():
    def pool(x):
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    assert program.flops(pool, spec(2, 8, 8, 3)) == 2 * 4 * 4 * 3 * 4


def test_the_gradient_of_a_lookup_counts_one_addition_per_element_that_it_scatters():
    def scatter(table, rows, updates):
        return table.at[rows].add(updates)

    rows = spec(7, dtype=jnp.int32)
    assert program.flops(scatter, spec(100, 5), rows, spec(7, 5)) == 7 * 5


# Control flow and nesting ------------------------------------------------------------------------


def test_a_scan_counts_its_body_as_often_as_it_runs():
    def scanned(w):
        return jax.lax.scan(lambda w, _: (w @ w, None), w, None, length=7)[0]

    assert program.flops(scanned, spec(6, 6)) == 7 * 2 * 6**3


def test_a_scan_in_a_scan_multiplies():
    def inner(w, _):
        return jax.lax.scan(lambda w, _: (w @ w, None), w, None, length=3)[0], None

    counted = program.flops(lambda w: jax.lax.scan(inner, w, None, length=5)[0], spec(6, 6))
    assert counted == 15 * 2 * 6**3


def test_a_loop_of_fixed_length_counts_every_pass_and_one_of_unknown_length_a_single_pass():
    def loop(n, w):
        return jax.lax.fori_loop(0, n, lambda _, w: w @ w, w)

    assert program.flops(lambda w: loop(9, w), spec(6, 6)) == 9 * 2 * 6**3
    assert program.flops(loop, spec(dtype=jnp.int32), spec(6, 6)) == 2 * 6**3


def test_a_cond_counts_its_dearest_branch():
    def choose(flag, w):
        return jax.lax.cond(flag, lambda w: w @ w @ w, lambda w: w @ w, w)

    assert program.flops(choose, spec(dtype=jnp.bool_), spec(6, 6)) == 2 * 2 * 6**3


def test_jit_remat_and_custom_derivatives_are_looked_into():
    @jax.custom_vjp
    def square(w):
        return w @ w

    square.defvjp(lambda w: (w @ w, w), lambda w, g: (g @ w + w @ g,))
    relu = jax.nn.relu  # a custom_jvp in a jit
    product = 2 * 6**3
    assert program.flops(jax.jit(square), spec(6, 6)) == product
    assert program.flops(relu, spec(6, 6)) == 36
    assert program.flops(jax.checkpoint(lambda w: w @ w), spec(6, 6)) == product
    # Forward once, backward two products and their sum; then the loss.
    assert program.flops(jax.grad(lambda w: square(w).sum()), spec(6, 6)) == 3 * product + 36 + 36


def test_recomputation_is_counted():
    def loss(w, x):
        return jnp.sin(x @ w).sum()

    plain = program.flops(jax.grad(loss), spec(6, 6), spec(4, 6))
    again = program.flops(jax.grad(jax.checkpoint(loss)), spec(6, 6), spec(4, 6))
    assert again - plain >= 2 * 4 * 6 * 6


# An independent witness --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        pytest.param(jnp.matmul, [(64, 32), (32, 16)], id="matrix product"),
        pytest.param(lambda a, b, c: a @ b @ c, [(8, 64), (64, 32), (32, 16)], id="two of them"),
        pytest.param(
            lambda a, b: jnp.einsum("bij,bjk->bik", a, b), [(4, 8, 16), (4, 16, 8)], id="batched"
        ),
        pytest.param(
            lambda x, w: conv(x, w, padding="VALID"), [(2, 9, 9, 3), (3, 3, 3, 8)], id="conv"
        ),
    ],
)
def test_the_count_agrees_with_xla_where_xla_counts_right(fn, shapes):
    specs = [spec(*shape) for shape in shapes]
    analysis = jax.jit(fn).lower(*specs).compile().cost_analysis()
    assert analysis is not None
    assert program.flops(fn, *specs) == pytest.approx(analysis["flops"], rel=1e-3)


def test_arrays_serve_as_their_own_specs():
    assert program.flops(jnp.matmul, np.ones((2, 3), np.float32), jnp.ones((3, 4))) == 48


# Scopes ------------------------------------------------------------------------------------------


def two_parts(params, x):
    with jax.named_scope("blocks"), jax.named_scope("0"):
        x = jnp.tanh(x @ params["one"])
    with jax.named_scope("head"):
        return (x @ params["two"]).sum()


PARAMS = {"one": spec(5, 6), "two": spec(6, 2)}


def test_operations_are_put_down_to_the_innermost_scope():
    found = program.flops_by_scope(two_parts, PARAMS, spec(4, 5))
    assert found == {"blocks/0": 2 * 4 * 5 * 6 + 24, "head": 2 * 4 * 6 * 2 + 8}


def test_the_scopes_add_up_to_the_whole():
    step = jax.value_and_grad(two_parts)
    found = program.flops_by_scope(step, PARAMS, spec(4, 5))
    assert sum(found.values()) == program.flops(step, PARAMS, spec(4, 5))


def test_gradients_count_to_the_scope_that_they_differentiate():
    found = program.flops_by_scope(jax.grad(two_parts), PARAMS, spec(4, 5))
    assert found.keys() <= {"blocks/0", "head", ""}
    assert found["head"] >= 3 * 2 * 4 * 6 * 2
    assert found["blocks/0"] >= 2 * 2 * 4 * 5 * 6


@pytest.mark.parametrize("transform", [jax.checkpoint, jax.jit, jax.vmap])
def test_transformations_leave_the_paths_alone(transform):
    def net(w, x):
        with jax.named_scope("blocks"), jax.named_scope("0"):
            return jnp.sin(transform(lambda x: jnp.sin(x) * 2)(x) @ w).sum()

    found = program.flops_by_scope(jax.grad(net), spec(5, 6), spec(4, 5))
    assert found.keys() <= {"blocks/0", ""}


def test_scopes_inside_a_scan_continue_the_path_outside():
    def body(x, _):
        with jax.named_scope("layer"):
            return jnp.tanh(x), None

    def net(x):
        with jax.named_scope("blocks"):
            return jax.lax.scan(body, x, None, length=3)[0]

    assert program.flops_by_scope(net, spec(4)) == {"blocks/layer": 12}


@pytest.mark.parametrize(
    ("name_stack", "path"),
    [
        ("", ""),
        ("blocks/0", "blocks/0"),
        ("jvp(blocks)/0", "blocks/0"),
        ("transpose(jvp(blocks))/0/vmap()/head", "blocks/0/head"),
        ("transpose(jvp(blocks/0))", "blocks/0"),
        ("jvp()", ""),
        ("transpose(jvp(blocks))/0/jvp(blocks)/0", "blocks/0"),
        ("rematted_computation/inner", "inner"),
        ("head/bij,bjk->bik", "head"),
        ("blocks/0/blocks/0", "blocks/0/blocks/0"),
        ("conv(3)", "conv(3)"),
    ],
)
def test_a_name_stack_becomes_a_path(name_stack, path):
    assert path_of(name_stack) == path


def test_paths_are_joined_and_taken_apart():
    assert join("a", "b/c") == "a/b/c"
    assert prefixes("a/b") == ["a/b", "a", ""]
    assert prefixes("") == [""]
