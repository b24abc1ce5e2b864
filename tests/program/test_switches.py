"""Variants in words: what they mean, and which are refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import program
from functorch_kit.program.cache import compiling_into, watch_compilations
from functorch_kit.program.carrying import Threading
from functorch_kit.program.placed_batch import BatchPlacement
from functorch_kit.program.switches import SWITCHES, Switches, read_switches
from functorch_kit.program.variants import make_variant

pytestmark = pytest.mark.usefixtures("short_samples")

QUICK: dict[str, Any] = {"rounds": 1, "matmul_size": 32}


def step(w, x):
    new = jax.tree.map(lambda leaf: leaf + jnp.tanh(x).mean(0), w)
    return new, (x @ new["a"]).sum()


def arguments():
    return {"a": jnp.arange(4.0), "b": jnp.ones(4)}, jnp.arange(32.0).reshape(8, 4) / 32


def test_words_combine_in_any_order_and_the_mode_is_jit_where_none_is_named():
    read = read_switches("donate+sharded=2 + scan=5")
    assert read == Switches("scan", length=5, donate=True, devices=2)
    assert read_switches("vmap+warm") == Switches("jit", vmap=True, cache="warm")
    assert read_switches("scan", scan_length=7).length == 7


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("jitt", "there is no 'jitt', did you mean 'jit'?"),
        ("jit+donat", "there is no 'donat', did you mean 'donate'?"),
        ("", "there is no ''"),
        ("jit+", "there is no ''"),
        ("jit+eager", "'eager' or 'jit', not both"),
        ("cold+warm", "'cold' or 'warm', not both"),
        ("donate+donate", "says 'donate' twice"),
        ("eager+donate", "'donate' needs a program that compare compiles, and 'eager' has none"),
        ("disable_jit+sharded=2", "take jit, aot or scan"),
        ("as_given+vmap", "and 'as_given' has none"),
        ("jit=3", "'jit' takes no number"),
        ("unroll", "'unroll' has no loop to unroll: add scan"),
        ("sharded", "'sharded' in 'sharded' needs a number: sharded=<devices>"),
        ("scan=0", "'scan=0' in 'scan=0': give a whole number from 1 up"),
        ("scan=ten", "give a whole number from 1 up"),
        ("scan=", "give a whole number from 1 up"),
        ("sharded=-2", "give a whole number from 1 up"),
    ],
)
def test_a_variant_without_sense_is_refused_in_one_line(variant, said):
    with pytest.raises(program.ComparisonError) as caught:
        program.compare(step, *arguments(), carry=0, batch=1, variants=("jit", variant))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_complaint_lists_every_word_with_the_number_it_takes():
    with pytest.raises(program.ComparisonError) as caught:
        read_switches("no")
    for word in SWITCHES:
        assert word in str(caught.value)
    assert "scan[=<steps>]" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variants": ("donate",)}, "'donate' donates, but nothing is carried: give carry="),
        ({"variants": ("sharded=2",)}, "say with batch= which argument it is"),
        ({"variants": ("sharded=64",), "batch": 1},
         "'sharded=64' needs 64 devices, and this process has 4: set JAX_NUM_CPU_DEVICES=64"),
        ({"variants": ("sharded=3",), "batch": 1},
         "splits the first axis of x, whose shape is (8, 4): give a batch that 3 divides"),
        ({"variants": ("scan+sharded=2",), "batch": 1}, "a scan without a carry cannot be sharded"),
        ({"batch": 2}, "batch is 2, but there are 2 arguments"),
    ],
)  # fmt: skip
def test_what_a_variant_needs_is_asked_for_before_anything_runs(options, said):
    with pytest.raises(program.ComparisonError) as caught:
        program.compare(step, *arguments(), **options)
    assert said in str(caught.value)


def test_every_combination_of_switches_gives_the_same_result():
    variants = (
        "eager", "jit", "donate", "vmap", "sharded=2", "sharded=4", "eager+vmap",
        "aot+donate+sharded=2", "scan=4+donate", "scan=2+unroll",
        "scan=3+vmap+sharded=2+donate", "aot+warm",
    )  # fmt: skip
    found = program.compare(
        step, *arguments(), carry=0, batch=1, variants=variants, steps=4, **QUICK
    )
    assert [(row.name, row.error, row.agrees) for row in found.variants] == [
        (name, None, True) for name in variants
    ]


def test_without_a_carry_the_combinations_hold_as_well():
    def fn(x, scale):
        return {"y": jnp.tanh(x) * scale}

    variants = ("eager", "vmap", "sharded=4", "aot+sharded=2", "scan=3+vmap")
    found = program.compare(
        fn, np.ones((4, 4), np.float32), 2.0, batch=0, variants=variants, **QUICK
    )
    assert [(row.error, row.agrees) for row in found.variants] == [(None, True)] * 5


def test_a_sharded_batch_is_split_and_the_rest_is_on_every_device():
    placement = BatchPlacement(4, batch=1)
    w, x = placement.place(arguments())
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 4)}
    assert {shard.data.shape for shard in w["a"].addressable_shards} == {(4,)}
    variant = make_variant(Switches("aot", devices=4), step, Threading(0), placement)
    variant.build((w, x))
    after, _ = variant.call((w, x))
    assert after["a"].sharding.is_equivalent_to(w["a"].sharding, 1)


def test_a_carry_that_the_compiler_would_split_stays_whole():
    w, x = jnp.zeros((8, 4)), jnp.ones((8, 4))
    found = program.compare(
        lambda w, x: w + x, w, x, carry=0, batch=1, steps=3,
        variants=("jit", "aot+sharded=2", "scan=3+sharded=4"), **QUICK,
    )  # fmt: skip
    assert [(row.error, row.agrees) for row in found.variants] == [(None, True)] * 3


def test_donate_takes_the_carrys_memory_and_leaves_the_callers_alone():
    for mode in ("jit", "aot", "scan"):
        variant = make_variant(Switches(mode, donate=True), step, Threading(0))
        args = arguments()
        variant.build(args)
        variant.call(args)
        assert args[0]["a"].is_deleted(), mode
    kept = arguments()
    found = program.compare(step, *kept, carry=0, variants=("jit", "donate"), **QUICK)
    assert not kept[0]["a"].is_deleted()
    plain, donated = (row.peak_bytes or 0 for row in found.variants)
    assert 0 < donated < plain


def test_vmap_of_one_adds_an_axis_and_takes_it_away():
    variant = make_variant(Switches(vmap=True), jnp.sin, Threading(None))
    jaxpr = str(jax.make_jaxpr(variant.fn)(jnp.ones(3)))
    assert "f32[1,3] = sin" in jaxpr
    assert variant.fn(jnp.ones(3)).shape == (3,)


def test_a_warm_cache_compiles_nothing_and_a_cold_one_everything():
    def deep(x):
        for _ in range(30):
            x = jnp.tanh(x @ x)
        return x

    found = program.compare(
        deep, jnp.ones((16, 16)), variants=("aot+cold", "aot+warm", "cold", "warm"), **QUICK
    )
    assert [row.agrees for row in found.variants] == [True] * 4
    for cold, warm in (("aot+cold", "aot+warm"), ("cold", "warm")):
        slow, quick = (found[name].compile_seconds or 0.0 for name in (cold, warm))
        assert 0 < quick < slow / 2


def test_the_cache_of_a_block_is_its_own_and_the_one_before_returns(tmp_path):
    def fn(x):
        return x * 3 + 1

    before = jax.config.values["jax_compilation_cache_dir"]
    hits = []
    for folder in (tmp_path, tmp_path, None):
        with compiling_into(folder), watch_compilations() as seen:
            jax.jit(lambda x: fn(x)).lower(1.0).compile()
        hits.append(seen.hits)
        assert jax.config.values["jax_compilation_cache_dir"] == before
    assert hits == [0, 1, 0]


def test_as_given_runs_the_callable_itself_with_what_is_compiled_in_it():
    calls = []

    @jax.jit
    def fn(x):
        calls.append(1)
        return x + 1

    fn(jnp.ones(3))
    found = program.compare(fn, jnp.ones(3), variants=("as_given",), **QUICK)
    assert found["as_given"].error is None
    assert len(calls) == 1  # when it was compiled, before
