"""A program is compiled for fixed shapes, says what is wrong with others, and what it cost."""

import json
import warnings
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from functorch_kit import program
from functorch_kit.errors import UserError

F32 = jnp.float32


def spec(*shape: int, dtype=F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


STATE = {"w": spec(4), "step": spec(dtype=jnp.int32)}
BATCH = {"x": spec(8, 4), "y": spec(8, dtype=jnp.int32)}


def train_step(state, batch):
    # batch["y"] is not read: it must be checked all the same.
    loss = (batch["x"] * state["w"][None]).sum()
    return {"w": state["w"] - batch["x"].sum(0), "step": state["step"] + 1}, loss


@pytest.fixture(scope="module")
def compiled() -> program.Program:
    return program.compile(train_step, STATE, BATCH, name="train_step")


def state():
    return {"w": jnp.ones(4), "step": jnp.int32(0)}


def batch(**changes):
    return {"x": jnp.ones((8, 4)), "y": jnp.zeros(8, jnp.int32), **changes}


def message(compiled: program.Program, *args) -> str:
    with pytest.raises(program.ProgramMismatch) as caught:
        compiled(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_program_computes_what_its_function_computes(compiled):
    new, loss = compiled(state(), batch())
    np.testing.assert_array_equal(new["w"], -7 * np.ones(4))
    assert (int(new["step"]), float(loss)) == (1, 32.0)


def test_numpy_arrays_and_numbers_of_the_right_type_are_accepted(compiled):
    numpy_batch = {"x": np.ones((8, 4), np.float32), "y": np.zeros(8, np.int32)}
    new, _ = compiled({"w": np.ones(4, np.float32), "step": 3}, numpy_batch)
    assert int(new["step"]) == 4


def test_a_second_shape_is_refused_and_the_leaf_is_named(compiled):
    assert message(compiled, state(), batch(x=jnp.ones((7, 4)))) == (
        "train_step: batch/x is float32[7,4], compiled for float32[8,4];"
        " pass that shape or compile another program"
    )


def test_another_dtype_is_refused_and_the_leaf_is_named(compiled):
    assert message(compiled, state(), batch(x=jnp.ones((8, 4), jnp.bfloat16))) == (
        "train_step: batch/x is bfloat16[8,4], compiled for float32[8,4];"
        " pass that dtype or compile another program"
    )


def test_a_leaf_that_the_function_does_not_read_is_checked_too(compiled):
    assert "batch/y is int32[7]" in message(compiled, state(), batch(y=jnp.zeros(7, jnp.int32)))


def test_an_int_that_became_a_float_is_refused(compiled):
    wrong = {"w": jnp.ones(4), "step": 1.5}
    assert "state/step is float32[], compiled for int32[]" in message(compiled, wrong, batch())


def test_missing_and_extra_leaves_are_named(compiled):
    wrong = {"x": jnp.ones((8, 4)), "label": jnp.zeros(8)}
    assert message(compiled, state(), wrong) == (
        "train_step: batch/y is missing, compiled for int32[8];"
        " batch/label is float32[8], compiled without it;"
        " pass that structure or compile another program"
    )


def test_a_missing_argument_is_named_and_one_too_many_is_counted(compiled):
    assert "argument batch is missing" in message(compiled, state())
    assert "3 arguments came, compiled for 2" in message(compiled, state(), batch(), 1.0)


def test_what_is_no_array_is_called_by_its_type(compiled):
    assert "batch/y is str, compiled for int32[8]" in message(compiled, state(), batch(y="text"))


def test_many_wrong_leaves_are_cut_short():
    specs = {name: spec(2) for name in "abcdefg"}
    total = program.compile(lambda tree: sum(tree.values()), specs, name="total")
    line = message(total, {name: jnp.ones(3) for name in "abcdefg"})
    assert line.count("is float32[3]") == 4
    assert "… and 3 more" in line


def test_a_container_of_another_type_is_named_although_every_leaf_fits():
    add = program.compile(lambda state: state["opt"][0] + 1, {"opt": (spec(), spec())}, name="add")
    line = message(add, {"opt": [jnp.float32(0), jnp.float32(0)]})
    assert line.startswith("add: state/opt is a list, compiled for a tuple;")
    Pair = namedtuple("Pair", "a b")
    line = message(add, {"opt": Pair(jnp.float32(0), jnp.float32(0))})
    assert "state/opt" in line


def test_the_refusal_is_a_user_error_and_a_type_error(compiled):
    with pytest.raises(UserError):
        compiled(state(), batch(x=jnp.ones((1, 4))))
    with pytest.raises(TypeError):
        compiled(state(), batch(x=jnp.ones((1, 4))))


def test_a_type_error_of_another_kind_goes_through_untouched(compiled):
    with pytest.raises(TypeError, match="Cannot apply JAX transformations") as caught:
        jax.grad(lambda w: compiled({**state(), "w": w}, batch())[1])(jnp.ones(4))
    assert not isinstance(caught.value, program.ProgramMismatch)


def test_a_refused_call_destroys_nothing():
    specs = ({"w": spec(4)}, spec(8, 4))
    step = program.compile(
        lambda state, x: {"w": state["w"] + x.sum(0)}, *specs, name="s", donate=(0,)
    )
    given = {"w": jnp.ones(4)}
    message(step, given, jnp.ones((7, 4)))
    assert not given["w"].is_deleted()


def test_a_function_is_traced_once():
    traces = []

    def counted(x):
        traces.append(x.shape)
        return x + 1

    next_one = program.compile(counted, spec(3), name="next")
    for _ in range(3):
        next_one(jnp.ones(3))
    assert traces == [(3,)]


def test_arguments_of_a_function_without_names_are_numbered():
    total = program.compile(lambda *trees: trees[0] + trees[1], spec(2), spec(2), name="total")
    assert "trees/1 is float32[3]" in message(total, jnp.ones(2), jnp.ones(3))


def test_typed_keys_are_leaves_like_any_other():
    key = jax.eval_shape(lambda: jax.random.key(0))
    draw = program.compile(lambda key: jax.random.uniform(key, (2,)), key, name="draw")
    expected = jax.random.uniform(jax.random.key(3), (2,))
    np.testing.assert_array_equal(draw(jax.random.key(3)), expected)
    assert "key is uint32[2], compiled for key<fry>[]" in message(draw, jnp.zeros(2, jnp.uint32))


# The report ------------------------------------------------------------------------------------


def test_the_report_counts_bytes_operations_and_time():
    product = program.compile(jnp.matmul, spec(16, 8), spec(8, 4), name="product")
    report = product.report
    assert report.argument_bytes == 4 * (16 * 8 + 8 * 4)
    assert report.output_bytes == 4 * 16 * 4
    assert report.flops == 2 * 16 * 8 * 4
    assert report.bytes_accessed == report.argument_bytes + report.output_bytes
    assert report.peak_bytes is not None
    assert report.temp_bytes is not None
    assert report.peak_bytes >= max(report.argument_bytes, report.temp_bytes)
    assert report.lower_seconds > 0
    assert report.compile_seconds > 0
    assert (report.name, report.platform, report.from_cache) == ("product", "cpu", False)


def test_the_report_is_ready_for_json():
    step = program.compile(train_step, STATE, BATCH, name="train_step", donate=(0,))
    plain = json.loads(json.dumps(step.report.to_dict()))
    assert plain["donated"] == ["state/step", "state/w"]
    assert plain["flops"] == step.report.flops


def test_a_chunk_of_steps_reports_the_operations_of_one():
    def chunk(w, n):
        return jax.lax.fori_loop(0, n, lambda _, w: w @ w, w)

    compiled = program.compile(chunk, spec(8, 8), spec(dtype=jnp.int32), name="chunk")
    assert compiled.report.flops == 2 * 8**3


def test_reused_and_not_reused_donations_are_told_apart():
    def step(state, x):
        return {"w": state["w"] + x.sum(0)}, x.mean()

    specs = ({"w": spec(4), "moments": spec(3)}, spec(8, 4))
    compiled = program.compile(step, *specs, name="step", donate=(0,))
    assert compiled.report.donated == ("state/w",)
    assert compiled.report.not_donated == ("state/moments",)
    given = {"w": jnp.ones(4), "moments": jnp.ones(3)}
    compiled(given, jnp.ones((8, 4)))
    assert given["w"].is_deleted()


def test_the_leaves_of_later_donated_arguments_are_named():
    def step(batch, unused, w):
        return w + batch.sum(0)

    compiled = program.compile(step, spec(8, 4), spec(3), spec(4), name="step", donate=(2,))
    assert compiled.report.donated == ("w",)
    assert compiled.report.not_donated == ()


def test_ordered_effects_do_not_shift_the_names_of_donated_leaves():
    def step(unused, w):
        io_callback(lambda _: None, None, w, ordered=True)
        return w + 1

    compiled = program.compile(step, spec(3), spec(4), name="step", donate=(0, 1))
    assert compiled.report.donated == ("w",)
    assert compiled.report.not_donated == ("unused",)


def test_without_donation_both_lists_are_empty_and_arguments_survive(compiled):
    assert (compiled.report.donated, compiled.report.not_donated) == ((), ())
    given = state()
    compiled(given, batch())
    assert not given["w"].is_deleted()


def test_other_warnings_of_the_function_are_not_swallowed():
    def warn(x):
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        return x

    with pytest.warns(UserWarning, match="mind the gap"):
        program.compile(warn, spec(2), name="warn")
