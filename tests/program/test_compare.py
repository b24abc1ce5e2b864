"""Modes are compared: same work, same arguments, every difference seen, no failure hidden."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import program
from functorch_kit.program import comparison, contestant
from functorch_kit.program.carrying import Threading, as_written
from functorch_kit.program.difference import differences, to_host
from functorch_kit.program.switches import Switches
from functorch_kit.program.variants import make_variant

pytestmark = pytest.mark.usefixtures("short_samples")

ALL = ("eager", "disable_jit", "jit", "aot", "scan")


def compare(fn: Callable[..., Any], *args: Any, **options: Any) -> program.Comparison:
    quick: dict[str, Any] = {"rounds": 1, "matmul_size": 32}
    return program.compare(fn, *args, **(quick | options))


def is_traced(x) -> bool:
    return isinstance(x, jax.core.Tracer)


def sgd(params, x, y):
    def loss(params):
        return ((jax.nn.relu(x @ params["one"]) @ params["two"] - y) ** 2).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value


def sgd_arguments():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"one": jax.random.normal(keys[0], (6, 8)), "two": jax.random.normal(keys[1], (8, 3))}
    return params, jax.random.normal(keys[2], (5, 6)), jax.random.normal(keys[3], (5, 3))


# What is run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def training() -> program.Comparison:
    return compare(sgd, *sgd_arguments(), carry=0, tolerance=1e-4, rounds=2)


def test_every_variant_has_its_row_in_the_order_asked_for(training):
    assert tuple(row.name for row in training.variants) == ALL
    assert [row.error for row in training.variants] == [None] * 5
    assert training.reference == "eager"


def test_the_modes_agree_on_a_sound_training_step(training):
    for row in training.variants:
        assert row.max_relative_difference is not None
        assert row.max_relative_difference < 1e-5
        assert row.agrees is True


def test_every_row_is_timed(training):
    for row in training.variants:
        assert row.calls >= 1
        assert 0 < row.q25_seconds <= row.median_seconds <= row.q75_seconds
        assert row.first_call_seconds > 0
        assert row.compile_seconds >= 0
        assert row.gflops == pytest.approx(training.flops / row.median_seconds / 1e9)
        assert row.matmul_share == pytest.approx(row.gflops / training.matmul_gflops)
    assert training["jit"].compile_seconds > 0
    assert training["eager"].speedup == pytest.approx(1.0)


def test_the_result_is_ready_for_json_and_for_reading(training):
    plain = json.loads(json.dumps(training.to_dict(), allow_nan=False))
    assert [row["name"] for row in plain["variants"]] == list(ALL)
    assert {"speedup", "low_seconds", "peak_bytes", "max_difference", "worst_leaf", "red"} <= set(
        plain["variants"][0]
    )
    assert plain["environment"]["jax"] == jax.__version__
    lines = str(training).splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["variant", *ALL]


def test_a_function_without_a_carry_is_compared_on_its_whole_output():
    def fn(x, scale):
        return {"y": jnp.tanh(x) * scale, "n": jnp.int32(3)}

    found = compare(fn, np.ones((4, 4), np.float32), 2.0, tolerance=1e-6)
    assert [(row.error, row.agrees) for row in found.variants] == [(None, True)] * 5


def test_typed_keys_can_be_carried_and_are_compared_exactly():
    def draw(key, x):
        return jax.random.split(key)[0], x + jax.random.uniform(key, x.shape)

    variants = ("eager", "jit", "aot", "scan")
    found = compare(
        draw, jax.random.key(0), jnp.ones(3), carry=0, tolerance=1e-6, variants=variants
    )
    assert [(row.error, row.agrees) for row in found.variants] == [(None, True)] * 4


def test_a_scan_without_a_carry_does_its_work_in_every_step():
    # Work on one and the same data would be hoisted out of the loop, and done once.
    found = compare(jnp.matmul, jnp.ones((8, 8)), jnp.ones((8, 8)), variants=("scan",))
    assert found["scan"].calls % 10 == 0
    variant = make_variant(Switches("scan"), jnp.matmul, Threading(None))
    (stacked,) = variant.prepare((jnp.ones((8, 8)), jnp.ones((8, 8))))
    assert [leaf.shape for leaf in stacked] == [(10, 8, 8)] * 2


# Differences -------------------------------------------------------------------------------------


def cheat(w, x):
    """Adds a half where it is traced, so that compiled modes drift from the eager one."""
    return w + x + (0.5 if is_traced(w) else 0.0), w.sum()


@pytest.mark.parametrize("scan_length", [3, 4, 8])
def test_the_difference_is_that_after_the_given_number_of_steps(scan_length):
    found = compare(
        cheat, jnp.zeros(2), jnp.ones(2), carry=0, steps=4, scan_length=scan_length, tolerance=0.1
    )
    assert found["eager"].max_difference == 0
    assert found["disable_jit"].max_difference == 0
    assert found["disable_jit"].agrees is True
    for name in ("jit", "aot", "scan"):
        row = found[name]
        # After four steps w is 4 eagerly and 6 compiled; the sum of the last w is 6 and 9.
        assert row.max_difference == 3.0
        assert row.max_relative_difference == 0.5
        assert row.worst_leaf in ("w", "output/1")
        assert row.agrees is False


def test_the_difference_is_relative_to_the_leafs_own_scale_and_names_it():
    def fn(x):
        large, small = 1000.0 * x, 0.1 * x
        return {"large": large + (1.0 if is_traced(x) else 0.0),
                "small": small + (0.05 if is_traced(x) else 0.0)}  # fmt: skip

    row = compare(fn, jnp.ones(3), variants=("eager", "jit"))["jit"]
    assert row.max_difference == pytest.approx(1.0)
    assert row.max_relative_difference == pytest.approx(0.5)
    assert row.worst_leaf == "output/small"


def test_integers_that_differ_are_infinitely_far_apart():
    def fn(x):
        return {"count": jnp.int32(7) + (1 if is_traced(x) else 0), "x": x}

    found = compare(fn, jnp.ones(2), variants=("eager", "jit"), tolerance=1.0)
    row = found["jit"]
    assert (row.max_difference, row.max_relative_difference) == (1.0, float("inf"))
    assert (row.worst_leaf, row.agrees) == ("output/count", False)
    plain = json.dumps(found.to_dict(), allow_nan=False)
    assert '"max_relative_difference": "inf"' in plain


@pytest.mark.parametrize(
    ("one", "other", "absolute", "relative"),
    [
        pytest.param([1.0, np.nan], [1.0, np.nan], 0, 0, id="NaN in both"),
        pytest.param([1.0, np.nan], [1.0, 2.0], np.inf, np.inf, id="NaN in the reference"),
        pytest.param([1.0, 2.0], [1.0, np.nan], np.inf, np.inf, id="NaN in the other"),
        pytest.param([np.inf, 1.0], [np.inf, 1.5], 0.5, 0.5, id="infinity in both"),
        pytest.param([np.inf], [-np.inf], np.inf, np.inf, id="opposite infinities"),
        pytest.param([0.0, 0.0], [0.0, 1e-9], 1e-9, 1.0, id="a reference of zeros"),
        pytest.param([2.0, -4.0], [2.0, -3.0], 1.0, 0.25, id="by the largest absolute value"),
        pytest.param([], [], 0, 0, id="no elements"),
        pytest.param([True, False], [True, True], 1.0, np.inf, id="booleans"),
        pytest.param([2**62], [2**62 + 1], 0.0, np.inf, id="integers that float64 cannot tell"),
        pytest.param([1 + 1j], [1 - 1j], 2.0, 2 / abs(1 + 1j), id="complex numbers"),
    ],
)
def test_leaves_differ_by(one, other, absolute, relative):
    found = differences({"leaf": np.array(one)}, {"leaf": np.array(other)})["leaf"]
    assert (found.absolute, found.relative) == (pytest.approx(absolute), pytest.approx(relative))


def test_bfloat16_differences_are_taken_in_float64():
    one = to_host([("w", jnp.array([1.0], jnp.bfloat16))])
    other = to_host([("w", jnp.array([1.0078125], jnp.bfloat16))])
    assert differences(one, other)["w"].absolute == 0.0078125


def test_other_keys_are_infinitely_far_apart():
    one, other = (to_host([("key", jax.random.key(seed))]) for seed in (0, 1))
    assert differences(one, one)["key"].relative == 0
    assert differences(one, other)["key"].relative == np.inf


def test_results_of_another_structure_or_shape_are_an_error_row():
    def fn(x):
        return {"traced": x} if is_traced(x) else {"plain": x}

    row = compare(fn, jnp.ones(2), variants=("eager", "jit"))["jit"]
    assert row.error == "ValueError: the result has other leaves than the reference: output/plain"
    with pytest.raises(ValueError, match="w has shape"):
        differences({"w": np.ones(2)}, {"w": np.ones(3)})


# Honesty -----------------------------------------------------------------------------------------


def test_a_variant_that_fails_is_a_row_with_its_error_in_one_line():
    def branches(x):
        return x + 1 if x.sum() > 0 else x - 1

    found = compare(branches, jnp.ones(3))
    assert found["eager"].error is None
    assert found["disable_jit"].error is None
    for name in ("jit", "aot", "scan"):
        row = found[name]
        assert row.error is not None
        assert row.error.startswith("TracerBoolConversionError: ")
        assert "\n" not in row.error
        assert (row.median_seconds, row.max_difference, row.calls) == (None, None, 0)
    assert found.flops is None
    assert found["eager"].gflops is None
    assert "TracerBoolConversionError" in str(found)


def test_the_first_variant_that_ran_is_the_reference_where_the_first_failed():
    def only_traced(x):
        if not is_traced(x):
            raise ValueError("op by op is not for me")
        return x + 1

    found = compare(only_traced, jnp.ones(2), variants=("eager", "jit", "aot"))
    assert found["eager"].error == "ValueError: op by op is not for me"
    assert found.reference == "jit"
    assert found["jit"].speedup == pytest.approx(1.0)
    assert found["aot"].max_difference == 0


def test_a_function_that_always_fails_still_has_its_rows():
    def fails(x):
        raise ValueError("never\nagain")

    found = compare(fails, jnp.ones(2))
    assert [row.error for row in found.variants] == ["ValueError: never"] * 5
    assert found.reference is None
    assert "never" in str(found)


def test_a_variant_that_fails_while_it_is_timed_is_a_row_too():
    calls = []

    def fails_later(x):
        calls.append(1)
        if len(calls) > 4:
            raise ValueError("enough")
        return x

    found = compare(fails_later, jnp.ones(2), variants=("eager", "jit"), rounds=3)
    assert found["eager"].error == "ValueError: enough"


def test_a_share_above_one_is_reported_as_an_error_in_the_measuring(monkeypatch):
    monkeypatch.setattr(comparison, "flops", lambda *_: 10**18)
    found = compare(jnp.sin, jnp.ones(3), variants=("eager", "jit"))
    share = found["jit"].matmul_share
    assert share is not None
    assert share > 1  # not clipped
    assert [line.split(":")[0] for line in found.warnings] == ["eager", "jit"]
    assert all("error in the measuring" in line and "\n" not in line for line in found.warnings)
    assert str(found).count("red: ") == 2
    assert [row.red for row in found.variants] == [True, True]


def test_eager_is_op_by_op_even_for_a_jitted_function():
    eager_calls = []

    @jax.jit
    def jitted(x):
        eager_calls.append(not is_traced(x))
        return x * 2

    found = compare(jitted, jnp.ones(2), variants=("eager",))
    assert sum(eager_calls) > found["eager"].calls


def test_under_disable_jit_inner_jits_run_as_python():
    seen = []

    @jax.jit
    def inner(x):
        seen.append(is_traced(x))
        return x * 2

    compare(lambda x: inner(x), jnp.ones(2), variants=("disable_jit",))
    assert seen.count(False) >= 2


def test_only_jit_is_unwrapped():
    def fn(x):
        return (x**2).sum()

    gradient = jax.grad(fn)
    assert as_written(gradient) is gradient  # its __wrapped__ is fn, another function
    assert as_written(jax.jit(jax.jit(fn))) is fn
    compiled = program.compile(fn, jnp.ones(2), name="fn")
    assert as_written(compiled) is fn
    found = compare(gradient, jnp.ones(3), variants=("eager", "jit"))
    assert found["jit"].max_difference == 0


def test_the_callers_arguments_survive():
    donating = jax.jit(lambda w, x: (w + x, x.sum()), donate_argnums=(0,))
    w, x = jnp.ones(4), jnp.ones(4)
    compare(donating, w, x, carry=0)
    assert not w.is_deleted()
    # Hidden in a function, where nobody sees that it donates.
    found = compare(lambda w, x: donating(w, x), w, x, carry=0, variants=("eager", "jit"))
    assert [row.error for row in found.variants] == [None, None]
    assert not w.is_deleted()


class Pending:
    """A result that counts how often it is waited for."""

    waits = 0

    def block_until_ready(self):
        Pending.waits += 1
        return self

    def __array__(self, dtype=None, copy=None):
        return np.zeros(2)


def test_every_timed_call_is_waited_for():
    Pending.waits = 0
    found = compare(lambda x: Pending(), jnp.ones(2), variants=("eager",))
    assert found["eager"].error is None
    assert Pending.waits >= found["eager"].calls


def test_variants_take_turns_round_by_round(monkeypatch):
    order = []
    sample = contestant.Contestant.sample

    def recorded(self):
        order.append(self.name)
        sample(self)

    monkeypatch.setattr(contestant.Contestant, "sample", recorded)
    compare(jnp.sin, jnp.ones(3), variants=("eager", "jit"), rounds=3)
    assert order == ["float32", "eager", "jit"] * 3


def test_a_slow_variant_is_cut_short_but_never_skipped():
    found = compare(jnp.sin, jnp.ones(3), variants=("eager", "jit"), rounds=5, seconds=0.0)
    for row in found.variants:
        assert row.error is None
        assert row.calls >= 1
        assert row.q25_seconds == row.q75_seconds  # a single sample


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variants": ("jitt",)}, "did you mean 'jit'?"),
        ({"variants": ()}, "variants is empty"),
        ({"variants": ("jit", "jit")}, "one twice"),
        ({"carry": 2}, "carry is 2, but there are 2 arguments"),
        ({"steps": 0}, "steps is 0"),
        ({"scan_length": 0}, "scan_length is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"carry": 1}, "carry=1: it goes in as float32[3] and comes out as float32[2]"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_in_one_line(options, said):
    with pytest.raises(program.ComparisonError) as caught:
        compare(lambda w, x: w + x.sum(), jnp.ones(2), jnp.ones(3), **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_that_cannot_be_carried_is_refused_before_anything_runs():
    with pytest.raises(program.ComparisonError, match="neither the output nor its first item"):
        compare(lambda w, x: {"other": x}, {"w": jnp.ones(2)}, jnp.ones(2), carry=0)
    with pytest.raises(program.ComparisonError, match=r"w goes in as float32\[2\] .* bfloat16"):
        compare(lambda s: {"w": s["w"].astype(jnp.bfloat16)}, {"w": jnp.ones(2)}, carry=0)
