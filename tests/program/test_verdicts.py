"""What a row is blamed for, where it first went another way, and memory that was not reused."""

import dataclasses
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import nn, program
from functorch_kit.program import device_memory
from functorch_kit.program.difference import Difference, tolerance_of
from functorch_kit.program.donation import why_not_reused
from functorch_kit.program.timing import median_interval
from functorch_kit.program.verdicts import judge

pytestmark = pytest.mark.usefixtures("short_samples")

QUICK: dict[str, Any] = {"rounds": 1, "matmul_size": 32}


def is_traced(x) -> bool:
    return isinstance(x, jax.core.Tracer)


# Tolerances --------------------------------------------------------------------------------------


def test_a_step_that_amplifies_roundings_is_not_blamed_for_them():
    def chaotic(x):
        # The logistic map doubles an error at each step: 2**12 roundings after twelve.
        x = x * (1 + 1e-7 * is_traced(x))
        return 4 * x * (1 - x)

    x = jnp.linspace(0.11, 0.87, 64)
    options: dict[str, Any] = {"carry": 0, "steps": 12, "variants": ("eager", "jit"), **QUICK}
    found = program.compare(chaotic, x, **options)
    moved = found["jit"].max_relative_difference
    assert moved is not None
    assert moved > 2e-5  # beyond what float32 is allowed …
    assert found["jit"].agrees  # … and within what one rounding does
    assert found.rounding["float32"] > 1e-5
    assert not program.compare(chaotic, x, tolerance=1e-5, **options)["jit"].agrees


def test_a_calm_step_is_held_to_the_tolerance_of_its_dtype():
    def fn(x):
        return x * (1 + 1e-3 * is_traced(x))

    x = jnp.linspace(0.5, 1, 8)
    rows = [
        program.compare(fn, x.astype(dtype), variants=("eager", "jit"), **QUICK)["jit"]
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    assert [row.agrees for row in rows] == [False, True]
    case = program.Case("jit as bf16", dtype="bfloat16")
    assert program.compare(fn, x, variants=("eager", case), **QUICK)["jit as bf16"].agrees


def test_the_dtypes_tolerances_are_some_roundings_each():
    for dtype in (jnp.float64, jnp.float32, jnp.float16, jnp.bfloat16):
        epsilons = tolerance_of(dtype) / float(jnp.finfo(dtype).eps)
        assert 2 < epsilons < 10_000
    assert tolerance_of(jnp.int32) == 0
    assert tolerance_of(jnp.complex64) == tolerance_of(jnp.float32)


def test_each_leaf_is_judged_by_what_a_rounding_does_to_that_leaf():
    found = {"calm": Difference(1.0, 2e-5), "chaotic": Difference(5.0, 0.5)}
    verdict = judge(found, "float32", None, {"chaotic": 0.1, "calm": 1e-8})
    assert (verdict.leaf, verdict.agrees) == ("calm", False)
    assert (verdict.relative, verdict.absolute) == (0.5, 5.0)
    assert judge(found, "float32", 0.6, {}).agrees


def test_a_cases_own_reference_takes_the_place_of_the_first_row():
    right = program.Case("twice", fn=lambda x: 2 * x)
    rows = ("jit", program.Case("wrong", fn=lambda x: 3 * x, reference=right),
            program.Case("right", fn=lambda x: x + x, reference=right))  # fmt: skip
    found = program.compare(lambda x: x, jnp.ones(3), variants=rows, **QUICK)
    assert [row.agrees for row in found.variants] == [True, False, True]
    assert found["right"].compared_with == "twice"
    broken = program.Case("broken", fn=lambda x: x.nothing)
    row = program.compare(
        lambda x: x, jnp.ones(3), variants=("jit", program.Case("a", reference=broken)), **QUICK
    )["a"]
    assert "its reference 'broken' AttributeError" in str(row.error)


def test_leaves_that_only_one_mode_has_can_be_left_out():
    case = program.Case("more", fn=lambda x: {"y": x, "n": x}, ignore=("output/n",))
    found = program.compare(lambda x: {"y": x}, jnp.ones(3), variants=("jit", case), **QUICK)
    assert found["more"].agrees


# Layers ------------------------------------------------------------------------------------------


def net_with(slope: float):
    return nn.serial(
        a=nn.dense(4), b=nn.serial(c=nn.lambda_(lambda x: jnp.where(x > 0, x, slope * x)),
                                   d=nn.dense(2)), e=nn.dense(2),
    )  # fmt: skip


def test_the_first_layer_that_differs_is_named_also_inside_a_gradient_and_a_scan():
    x = jax.random.normal(jax.random.key(1), (8, 3))
    params, state = net_with(0.0).init(jax.random.key(0), x)

    def step_of(slope, *, scanned=False):
        def loss(params, x):
            return jnp.square(net_with(slope).apply(params, state, x)[0]).sum()

        def step(params, x):
            if not scanned:
                return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params, x))
            halves = x.reshape(2, 4, 3)
            zero = jax.tree.map(jnp.zeros_like, params)
            add = jax.tree.map
            total, _ = jax.lax.scan(
                lambda s, half: (add(jnp.add, s, jax.grad(loss)(params, half)), None), zero, halves
            )
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, total)

        return step

    cases = [program.Case(f"{slope}, {scanned}", fn=step_of(slope, scanned=scanned))
             for slope in (0.0, 0.3) for scanned in (False, True)]  # fmt: skip
    found = program.compare(step_of(0.0), params, x, carry=0, steps=2,
                            variants=("eager", *cases), **QUICK)  # fmt: skip
    assert [row.agrees for row in found.variants] == [True, True, True, False, False]
    for row in found.variants[3:]:
        assert (row.diverges_at, row.diverges_at_step) == ("b/c", 1)


def test_a_wrong_gradient_shows_in_the_first_layer_of_the_last_step():
    x = jnp.ones((4, 3))
    model = nn.serial(a=nn.dense(2), b=nn.tanh)
    params, state = model.init(jax.random.key(0), x)

    def step_of(rate):
        def step(params, x):
            loss = lambda p: model.apply(p, state, x)[0].sum()  # noqa: E731
            return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

        return step

    case = program.Case("other rate", fn=step_of(0.2))
    found = program.compare(step_of(0.1), params, x, carry=0, steps=3,
                            variants=("jit", case), **QUICK)["other rate"]  # fmt: skip
    assert (found.diverges_at, found.diverges_at_step) == ("a", 3)


def test_rematerialised_parts_are_seen_once_and_in_order():
    x = jnp.ones((2, 3))
    model = net_with(0.0)
    params, state = model.init(jax.random.key(0), x)

    @jax.checkpoint
    def loss(params):
        return model.apply(params, state, x)[0].sum()

    for compiled in (True, False):
        found = program.layer_outputs(jax.grad(loss), params, compiled=compiled)
        assert list(found) == ["a", "b/c", "b/d", "b", "e"]
        assert [value.size for value in found.values()] == [8, 8, 4, 4, 4]


# Time and memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "within"), [(1, 1), (5, 5), (6, 6), (9, 7), (20, 10)])
def test_the_interval_holds_the_median_with_95_percent(count, within):
    # Exact: how many of n fair coins show heads.
    low, high = median_interval(list(range(count)))
    assert high - low + 1 == within
    generator = np.random.default_rng(0)
    if count >= 6:
        draws = (generator.normal(size=count).tolist() for _ in range(2000))
        holds = [low <= 0 <= high for low, high in map(median_interval, draws)]
        assert np.mean(holds) > 0.94


def test_a_lone_call_is_part_dispatch_and_part_waiting():
    row = program.compare(lambda x: x @ x, jnp.ones((300, 300)), variants=("jit",), rounds=3,
                          matmul_size=256)["jit"]  # fmt: skip
    fields = dataclasses.asdict(row)
    assert 0 < fields["dispatch_seconds"] <= fields["call_seconds"]
    assert fields["low_seconds"] <= fields["median_seconds"] <= fields["high_seconds"]
    assert fields["peak_bytes"] >= 2 * 4 * 300 * 300


def test_a_buffer_that_was_not_donated_says_why():
    def step(state, x):
        return {"w": state["w"] + x.sum(0), "n": (state["m"] > 0).sum()}, x.mean()

    shapes = {"w": (4,), "w2": (4,), "m": (3,), "n": ()}
    state = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    report = program.compile(step, state, x, name="step", donate=(0,)).report
    assert report.not_donated == tuple(report.why_not_donated)
    assert report.why_not_donated["state/m"] == "no output is float32[3]"
    (twin,) = {"state/w", "state/w2"} & set(report.not_donated)
    reason = "the one output that is float32[4] holds another donated leaf"
    assert report.why_not_donated[twin] == reason
    assert report.to_dict()["why_not_donated"]["state/m"] == "no output is float32[3]"


def test_a_dtype_that_changed_and_a_buffer_that_was_kept_apart_are_told():
    half, full = (jax.ShapeDtypeStruct((4,), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert why_not_reused([("m", half)], [], [full])["m"] == (
        "no output is bfloat16[4], only float32[4]"
    )
    assert "the compiler keeps it apart" in why_not_reused([("m", full)], [], [full])["m"]


class Device:
    """Stands in for a device that reports its memory."""

    platform = "gpu"

    def __init__(self, *peaks: int) -> None:
        self.peaks = list(peaks)

    def memory_stats(self):
        peak = self.peaks.pop(0) if len(self.peaks) > 1 else self.peaks[0]
        return {"bytes_in_use": 100, "peak_bytes_in_use": peak}


@pytest.mark.parametrize(
    ("peaks", "measured", "why"),
    [((500, 900), 800 + 4000, ""), ((900, 900), None, "a larger program ran before this one")],
)
def test_measured_memory_is_what_the_devices_peak_grew_by(monkeypatch, peaks, measured, why):
    add = program.compile(lambda x: x + 1, jnp.zeros(1000), name="add")
    device = Device(*peaks)
    monkeypatch.setattr(device_memory.jax, "local_devices", lambda: [device])
    monkeypatch.setattr(device_memory, "_bytes_here", lambda array: array.nbytes)
    used = program.memory_use(add, jnp.zeros(1000))
    assert used.measured_bytes == measured
    assert why in used.why
    assert used.compiled_bytes == add.report.peak_bytes
    assert used.share is None if measured is None else used.share == measured / used.compiled_bytes


def test_a_device_that_does_not_report_its_memory_says_so():
    add = program.compile(lambda x: x + 1, jnp.zeros(1000), name="add")
    used = program.memory_use(add, jnp.zeros(1000))
    assert used.measured_bytes is None
    assert used.why == "a cpu device does not report its memory"
