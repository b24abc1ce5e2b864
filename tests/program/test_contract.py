"""The compile contract: ten faults are planted, and each is caught and named.

A fault is caught where it enters: while compiling (``ProgramRefused``) or by the call that brings
it (``ProgramMismatch``). What JAX's executable takes without a retrace and without another bit is
no fault, and must pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from functorch_kit import program
from functorch_kit.errors import UserError

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
STATE = {"w": jax.ShapeDtypeStruct((4,), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}
BATCH = {"x": jax.ShapeDtypeStruct((8, 4), jnp.float32)}
TABLE = np.arange(5000, dtype=np.float32)


class Step:
    """A step that counts how often Python runs it."""

    def __init__(self):
        self.traces = 0

    def __call__(self, rate, state, batch):
        self.traces += 1
        gradient = (batch["x"] * state["w"][None]).sum(0)
        return {"w": state["w"] - rate * gradient, "step": state["step"] + 1}, gradient.sum()


@pytest.fixture(scope="module")
def step() -> program.Program:
    return program.compile(Step(), SCALAR, STATE, BATCH, name="train_step", carry=1)


def state(**changes):
    return {"w": jnp.arange(4.0), "step": jnp.int32(0), **changes}


def batch(rows: int = 8):
    return {"x": jnp.ones((rows, 4))}


def mismatch(compiled: program.Program, *args, **keywords) -> str:
    with pytest.raises(program.ProgramMismatch) as caught:
        compiled(*args, **keywords)
    return _one_line(caught.value)


def refusal(fn, *specs, **options) -> str:
    with pytest.raises(program.ProgramRefused) as caught:
        program.compile(fn, *specs, name="train_step", **options)
    assert isinstance(caught.value, TypeError)
    return _one_line(caught.value)


def _one_line(error: Exception) -> str:
    assert isinstance(error, UserError)
    assert "\n" not in str(error)
    assert str(error).startswith("train_step: ")
    return str(error)


def once(compiled: program.Program) -> bool:
    function = compiled.__wrapped__
    assert isinstance(function, Step)
    return function.traces == 1


# 1 weak types --------------------------------------------------------------------------------


def test_a_weakly_typed_argument_makes_no_second_trace_and_moves_no_bit(step):
    strong = step(jnp.float32(0.3), state(), batch())
    weak = jnp.asarray(0.3)
    assert weak.weak_type
    for rate in (weak, 0.3, np.float64(0.3), np.float32(0.3)):
        for one, other in zip(
            jax.tree.leaves(strong), jax.tree.leaves(step(rate, state(), batch())), strict=True
        ):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert once(step)


def test_a_state_that_comes_out_weakly_typed_is_refused_and_the_leaf_is_named():
    def drifts(state, x):
        return {"scale": jnp.where(x.sum() > 0, 1.0, 2.0)}, x

    line = refusal(drifts, {"scale": SCALAR}, BATCH["x"], carry=0)
    assert "state/scale goes in as float32[] and comes out as weakly typed float32[]" in line
    strong = lambda state, x: ({"scale": jnp.where(x.sum() > 0, 1.0, state["scale"])}, x)  # noqa: E731
    program.compile(strong, {"scale": SCALAR}, BATCH["x"], name="train_step", carry=0)


# 2 a Python scalar that varies ---------------------------------------------------------------


def test_a_python_scalar_that_varies_is_an_argument_like_any_other(step):
    rates = (0.1, 0.2, 0.3)
    found = [float(step(rate, state(), batch())[0]["w"][1]) for rate in rates]
    assert found == pytest.approx([1 - 8 * rate for rate in rates], rel=1e-6)
    assert once(step)


def test_a_python_scalar_whose_value_python_needs_is_refused_and_named():
    def unrolled(x, options):
        for _ in range(options["depth"]):
            x = jnp.sin(x)
        return x

    line = refusal(unrolled, BATCH["x"], {"depth": 3})
    assert "options/depth is a traced int32[], but Python needs its value: it is static" in line
    assert "functools.partial" in line
    assert "count" in refusal(lambda count: jnp.zeros(count), 3)


def test_a_python_scalar_too_large_for_its_dtype_is_named(step):
    line = mismatch(step, 0.1, state(step=2**40), batch())
    assert "state/step is 1099511627776 (too large), compiled for int32[]" in line


# 3 a changed dict key ------------------------------------------------------------------------


def test_a_changed_dict_key_is_named_both_as_missing_and_as_new(step):
    line = mismatch(step, 0.1, state(), {"image": jnp.ones((8, 4))})
    assert "batch/x is missing, compiled for float32[8,4]" in line
    assert "batch/image is float32[8,4], compiled without it" in line


# 4 a ragged batch ----------------------------------------------------------------------------


def test_a_ragged_batch_is_named_with_both_shapes(step):
    line = mismatch(step, 0.1, state(), batch(rows=5))
    assert "batch/x is float32[5,4], compiled for float32[8,4]" in line
    assert once(step)


# 5 a captured array --------------------------------------------------------------------------


def test_a_captured_array_is_refused_while_tracing_and_named_with_its_line():
    table = jnp.asarray(TABLE)

    def look_up(i):
        return table[i]

    line = refusal(look_up, jax.ShapeDtypeStruct((), jnp.int32))
    assert "it captures table, float32[5000] of 20.0 kB, used at test_contract.py:" in line
    assert "pass it as an argument" in line


@pytest.mark.parametrize("wrap", ["jit", "grad", "scan", "loop", "cond", "partial", "remat"])
def test_a_captured_array_is_found_at_any_depth(wrap):
    hidden = {"mask": jnp.asarray(TABLE)}

    def inner(x):
        return (x * hidden["mask"]).sum()

    fn = {
        "jit": lambda x: jax.jit(inner)(x) + 1,
        "grad": jax.grad(inner),
        "scan": lambda x: jax.lax.scan(lambda c, _: (c + inner(c), None), x, None, length=2)[0],
        "loop": lambda x: jax.lax.fori_loop(0, x.astype(int), lambda i, c: c + inner(c), x),
        "cond": lambda x: jax.lax.cond(x > 0, inner, lambda x: x, x),
        "partial": functools.partial(lambda fn, x: fn(x), inner),
        "remat": jax.checkpoint(inner),
    }[wrap]
    line = refusal(fn, SCALAR)
    assert "it captures hidden/mask, float32[5000] of 20.0 kB" in line
    assert ", used at test_contract.py:" in line or wrap == "remat"  # JAX keeps no line of it


def test_a_captured_numpy_array_of_the_module_is_named():
    assert "it captures TABLE, " in refusal(lambda x: (x * TABLE).sum(), SCALAR)


def test_a_captured_array_that_is_returned_as_it_is_is_found():
    assert "float32[5000]" in refusal(lambda x: (x, TABLE), SCALAR)


def test_4096_bytes_may_be_captured_and_more_where_it_is_allowed():
    small, large = jnp.ones(1024), jnp.ones(1025)
    program.compile(lambda x: x + small.sum(), SCALAR, name="small")
    assert "float32[1025]" in refusal(lambda x: x + (large * x).sum(), SCALAR)
    program.compile(lambda x: x + (large * x).sum(), SCALAR, name="any", captured_bytes=None)


def test_an_array_made_inside_the_function_is_not_captured():
    program.compile(lambda x: x * jnp.arange(5000.0) + jnp.eye(80).sum(), SCALAR, name="inside")


# 6 a drift of the state ----------------------------------------------------------------------


DRIFTS = {
    "w goes in as float32[4] and comes out as bfloat16[4]": lambda s: {
        **s,
        "w": s["w"].astype(jnp.bfloat16),
    },
    "w goes in as float32[4] and comes out as float32[3]": lambda s: {**s, "w": s["w"][:3]},
    "step goes in as int32[] and comes out as nothing": lambda s: {"w": s["w"]},
    "ema comes out but did not go in": lambda s: {**s, "ema": s["w"]},
}


@pytest.mark.parametrize("complaint", DRIFTS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "first of a tuple"])
def test_a_state_that_drifts_is_refused_while_compiling(complaint, whole):
    def fn(state, x):
        after = DRIFTS[complaint](state)
        return after if whole else (after, x)

    line = refusal(fn, STATE, SCALAR, carry=0)
    assert f"state/{complaint}" in line
    assert "return the state as it was taken" in line


def test_a_state_in_another_container_is_refused_although_every_leaf_fits():
    line = refusal(lambda state: [state[0]], (SCALAR,), carry=0)
    assert "state comes out with containers of other types" in line


# 7 a changed static --------------------------------------------------------------------------


def test_a_static_value_among_the_arguments_is_refused_while_compiling():
    line = refusal(lambda x, options: x, SCALAR, {"mode": "train"})
    assert "options/mode is 'train', no array but a static value" in line
    assert "act is a function, no array" in refusal(lambda act, x: act(x), lambda x: x, SCALAR)


def test_a_static_value_given_to_a_call_is_refused_and_named():
    def power(x, exponent=2):
        return x**exponent

    compiled = program.compile(functools.partial(power, exponent=3), SCALAR, name="train_step")
    assert float(compiled(2.0)) == 8
    line = mismatch(compiled, 2.0, exponent=2)
    assert "exponent=2 came by name, compiled with exponent=3" in line
    assert "compile another program" in line


def test_a_static_value_belongs_to_the_program_whatever_becomes_of_it_outside():
    options = {"exponent": 2}
    square = program.compile(lambda x: x ** options["exponent"], SCALAR, name="square")
    options["exponent"] = 3
    cube = program.compile(lambda x: x ** options["exponent"], SCALAR, name="cube")
    assert (float(square(2.0)), float(cube(2.0))) == (4, 8)


# 8 a new sharding ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shardings():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, jax.P("data")), NamedSharding(mesh, jax.P())


def test_an_array_spread_over_devices_is_refused_by_a_program_of_one_device(step, shardings):
    split, _ = shardings
    line = mismatch(step, 0.1, state(), jax.device_put(batch(), split))
    assert line == (
        "train_step: batch/x is split P('data') over 4 devices (cpu:0 … 3), compiled to be on"
        " cpu:0; pass that sharding or compile another program"
    )
    line = mismatch(step, 0.1, state(w=jax.device_put(jnp.ones(4), jax.devices()[2])), batch())
    assert "state/w is on cpu:2, compiled to be on cpu:0" in line


def test_a_program_of_many_devices_names_a_leaf_that_lies_otherwise(shardings):
    split, copied = shardings
    specs = {
        "w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=copied),
        "x": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=split),
    }
    total = program.compile(lambda t: (t["x"] * t["w"][None]).sum(), specs, name="train_step")
    w, x = np.ones(4, np.float32), np.ones((8, 4), np.float32)
    assert float(total({"w": w, "x": jax.device_put(x, split)})) == 32
    line = mismatch(total, {"w": w, "x": jax.device_put(x, copied)})
    assert "t/x is copied to 4 devices (cpu:0 … 3), compiled to be split P('data') over 4" in line
    assert "t/w" not in line


def test_arrays_that_nobody_placed_go_where_the_program_wants_them(step):
    placed = jax.device_put(batch(), jax.devices()[0])
    np.testing.assert_array_equal(
        step(0.1, state(), placed)[1],
        step(0.1, state(w=np.arange(4, dtype=np.float32)), batch())[1],
    )


# 9 `train` flipped ---------------------------------------------------------------------------


def forward(params, x, train):
    return x * params if train else x


def test_a_python_bool_among_the_arguments_is_refused_as_static():
    line = refusal(forward, SCALAR, SCALAR, True)
    assert line == (
        "train_step: train is True, a Python bool, which is static; bind it before compiling"
        " (functools.partial) and compile a program for each of its values"
    )


def test_a_flag_in_a_traced_position_is_refused_where_python_branches_on_it():
    flag = jax.ShapeDtypeStruct((), bool)
    assert "train is a traced bool[], but Python needs its value" in refusal(
        forward, SCALAR, SCALAR, flag
    )
    line = refusal(lambda x, flags: forward(x, x, flags["train"]), SCALAR, {"train": flag})
    assert "flags/train is a traced bool[]" in line


def test_a_flag_that_is_flipped_at_a_call_is_refused_with_the_value_compiled():
    bound = functools.partial(forward, train=True)
    compiled = program.compile(bound, SCALAR, SCALAR, name="train_step")
    line = mismatch(compiled, 3.0, 2.0, train=False)
    assert "train=False came by name, compiled with train=True" in line
    assert "3 arguments came, compiled for 2" in mismatch(compiled, 3.0, 2.0, False)


def test_a_bool_that_is_data_passes():
    flip = program.compile(
        lambda x, flag: jnp.where(flag, x, -x), SCALAR, jax.ShapeDtypeStruct((), bool), name="flip"
    )
    assert (float(flip(2.0, True)), float(flip(2.0, np.bool_(False)))) == (2, -2)


def test_an_array_that_python_branches_on_keeps_the_advice_of_jax():
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        program.compile(lambda x: x if (x > 0).all() else -x, BATCH["x"], name="branch")
    assert not isinstance(caught.value, UserError)


# 10 an int that became a float ---------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, np.float32(1), jnp.float32(1)])
def test_an_int_that_became_a_float_is_named(step, value):
    line = mismatch(step, 0.1, state(step=value), batch())
    assert "state/step is float32[], compiled for int32[]" in line


def test_a_float_that_became_an_int_is_named(step):
    line = mismatch(step, 1, state(), batch())
    assert "rate is int32[], compiled for float32[]" in line
    assert once(step)
