"""What devices exchange, read from the compiled program: against sizes worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from functorch_kit.distributed import Collective, collectives, make_mesh

N = 64


def compiled(fn: Any, *arguments: tuple[Any, PartitionSpec], out: PartitionSpec) -> Any:
    mesh = make_mesh(data=2, tensor=2)
    specs = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in arguments
    ]
    return jax.jit(fn, out_shardings=NamedSharding(mesh, out)).lower(*specs).compile()


def test_a_sum_over_a_split_axis_is_one_all_reduce_of_its_result():
    found = compiled(lambda x: x.sum(0), ((8, N), PartitionSpec("data")), out=PartitionSpec())
    assert collectives(found) == [Collective("all-reduce", 2, 1, 4 * N)]


def test_gathering_an_array_counts_the_whole_of_it():
    found = compiled(lambda x: x + 1, ((8, N), PartitionSpec("data")), out=PartitionSpec())
    assert collectives(found) == [Collective("all-gather", 2, 1, 4 * 8 * N)]


def test_a_loop_counts_as_often_as_it_runs():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

    found = compiled(
        loop,
        ((8, N), PartitionSpec("data", "tensor")),
        ((N, N), PartitionSpec("tensor", None)),
        out=PartitionSpec("data", "tensor"),
    )
    made = collectives(found)
    assert sum(each.times for each in made) % 5 == 0
    assert {each.group for each in made} == {2}


def test_without_exchanges_there_are_none():
    found = compiled(lambda x: x + 1, ((8, N), PartitionSpec("data")), out=PartitionSpec("data"))
    assert collectives(found) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%x = f32[8,4]{1,0} all-gather(%a), replica_groups=[2,4]<=[8], dimensions={0}",
            Collective("all-gather", 4, 1, 128),
        ),
        (
            "%x = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%a), replica_groups={{0,1,2,3}}",
            Collective("all-gather", 4, 1, 128),
        ),
        (
            "%x = (f32[2,4]{1,0}, f32[4]{0}) all-reduce(%a, %b), replica_groups={{0,1},{2,3}}",
            Collective("all-reduce", 2, 1, 48),
        ),
        (
            "%x = f32[2,4]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}",
            Collective("collective-permute", 2, 1, 32),
        ),
        (
            "%x = f32[4]{0} all-reduce(%b), replica_groups=mesh['a'=2,'b'=4] {'a', 'b':(1)2}",
            Collective("all-reduce", 4, 1, 16),
        ),
        ("%x = f32[2,4]{1,0} all-reduce(%a), replica_groups={{0},{1}}", None),
    ],
)
def test_groups_and_sizes_are_read_in_every_notation(line: str, expected: Collective | None):
    text = f"""HloModule jit_f, is_scheduled=true
ENTRY %main (a: f32[2,4], b: f32[4]) -> f32[] {{
  %a = f32[2,4]{{1,0}} parameter(0)
  %b = f32[4]{{0}} parameter(1)
  {line}
}}"""
    assert collectives(text) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("kind", "size", "sent"),
    [
        ("all-reduce", 400, 600.0),  # 3/4 of it to be added up, 3/4 to be handed round
        ("all-gather", 400, 300.0),  # every part but its own passes through a device
        ("reduce-scatter", 100, 300.0),  # the result is a quarter of what was sent
        ("all-to-all", 400, 300.0),
        ("collective-permute", 400, 400.0),
    ],
)
def test_what_a_device_sends_on_a_ring_of_four(kind: str, size: int, sent: float):
    assert Collective(kind, 4, 1, size).sent == sent
