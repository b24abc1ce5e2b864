"""Which axis of which parameter is split: by rule, by size, and what cannot be is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from functorch_kit import distributed, models, train
from functorch_kit.distributed import MeshError, Rules, make_mesh, mesh_shape, partition
from functorch_kit.types import path_name


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def mesh(**sizes: int) -> Any:
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (8, {}, (8, 1, 1, 1)),
        (8, {"data": -1, "tensor": 4}, (2, 1, 1, 4)),
        (8, {"data": 2, "fsdp": -1}, (2, 4, 1, 1)),
        (8, {"data": 1, "fsdp": 2, "sequence": 2}, (1, 2, 2, 1)),
    ],
)
def test_an_open_size_takes_the_devices_that_are_left(count, sizes, expected):
    assert mesh_shape(count, **sizes) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 16}, "takes 16 devices, and there are 8: give sizes for 8"),
        ({"data": -1, "fsdp": -1}, "give numbers from 1 up, and -1 for one at most"),
        ({"data": 0}, "give numbers from 1 up"),
        ({"data": -1, "tensor": 3}, "8 devices do not split by a mesh of data -1 × tensor 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_would(sizes, message: str):
    with pytest.raises(MeshError, match=message):
        mesh_shape(8, **sizes)


def test_fewer_devices_are_used_where_fewer_are_asked_for():
    assert make_mesh(data=2).size == 2
    assert make_mesh().size == 4


def test_without_rules_the_largest_axis_that_divides_is_split_of_what_is_large():
    params = {
        "wide": shape(64, 128),
        "odd": shape(127, 64),
        "prime": shape(127, 131),
        "small": shape(8, 8),
        "scalar": shape(),
    }
    found = partition(params, mesh(fsdp=4))
    assert {name: tuple(spec) for name, spec in found.items()} == {
        "wide": (None, "fsdp"),
        "odd": (None, "fsdp"),
        "prime": (None, None),
        "small": (None, None),
        "scalar": (),
    }


def test_an_axis_that_a_rule_has_taken_is_left_to_it():
    rules = {"**/kernel": P(None, "tensor")}
    found = partition({"a": {"kernel": shape(64, 128)}}, mesh(fsdp=4, tensor=2), rules)
    assert tuple(found["a"]["kernel"]) == ("fsdp", "tensor")


def test_the_last_rule_that_matches_counts_and_fits_a_stack_of_layers():
    rules = {"**": P("tensor"), "blocks/up": P("tensor", None)}
    params = {"blocks": {"up": shape(12, 64, 128)}, "head": shape(64, 128)}
    found = partition(params, mesh(tensor=2), rules)
    assert tuple(found["blocks"]["up"]) == (None, "tensor", None)
    assert tuple(found["head"]) == (None, "tensor")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"hed": P("tensor")}, "rule 'hed' names no parameter: did you mean 'head'?"),
        ({"head": P("model")}, "the mesh has no axis 'model': it has fsdp, tensor"),
        ({"head": P("tensor")}, r"axis 1 of 'head' \(4, 9\) does not split over tensor"),
        ({"head": P(None, None, "fsdp")}, r"has 3 axes, and 'head' is of shape \(4, 9\)"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_and_the_parameter_is_named(rules, message: str):
    with pytest.raises(MeshError, match=message):
        partition({"head": shape(4, 9)}, mesh(fsdp=1, tensor=2), rules)


def test_rules_for_a_family_leave_whole_what_cannot_be_split():
    rules = Rules({"head": P("tensor"), "more": P("tensor")}, False)
    assert tuple(partition({"head": shape(9)}, mesh(tensor=2), rules)["head"]) == (None,)


def split_paths(model: Any, x: Any, rules: Rules) -> dict[str, tuple[Any, ...]]:
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    found = partition(params, mesh(tensor=2), rules)
    leaves = jax.tree_util.tree_leaves_with_path(found, is_leaf=lambda leaf: isinstance(leaf, P))
    return {path_name(path): tuple(spec) for path, spec in leaves if any(spec)}


def test_the_shipped_rules_split_every_matrix_of_a_gpt_block_once():
    config = models.GPTConfig(layers=1, heads=2, width=8, vocabulary=6, use_bias=True)
    found = split_paths(models.gpt(config), jnp.zeros((1, 4), jnp.int32), distributed.GPT)
    block = "blocks/0"
    columns, rows = (None, "tensor"), ("tensor", None)
    assert found == {
        "token/embedding": rows,
        **{f"{block}/attention/{n}/kernel": columns for n in ("query", "key", "value")},
        **{f"{block}/attention/{n}/bias": ("tensor",) for n in ("query", "key", "value")},
        f"{block}/attention/out/kernel": rows,
        f"{block}/mlp/up/kernel": columns,
        f"{block}/mlp/up/bias": ("tensor",),
        f"{block}/mlp/down/kernel": rows,
    }


def test_the_shipped_rules_of_vit_and_mlp_alternate_columns_and_rows():
    vit = models.vit(models.ViTConfig(layers=1, heads=2, width=8, patch=2, outputs=4))
    found = split_paths(vit, jnp.zeros((1, 4, 4, 3)), distributed.VIT)
    assert found["blocks/0/mlp/down/kernel"] == ("tensor", None)
    assert found["head/kernel"] == (None, "tensor")
    mlp = models.mlp(models.MLPConfig(hidden=(4, 4, 4), outputs=3))
    assert split_paths(mlp, jnp.zeros((1, 4)), distributed.MLP) == {
        "hidden_0/kernel": (None, "tensor"),
        "hidden_0/bias": ("tensor",),
        "hidden_1/kernel": ("tensor", None),
        "hidden_2/kernel": (None, "tensor"),
        "hidden_2/bias": ("tensor",),
    }


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_the_optimizers_state_lies_where_its_parameters_do(name: str):
    layout = distributed.Layout(make_mesh(data=1, fsdp=2, tensor=2), {"up": P("tensor")})
    params = {"up": {"kernel": shape(64, 128)}, "down": {"kernel": shape(256, 130)}}
    optimizer = {"adamw": optax.adamw, "adafactor": optax.adafactor, "muon": train.muon}[name](0.1)
    step, key = jax.eval_shape(lambda: (jnp.int32(0), jax.random.key(0)))
    state = train.TrainState(step, params, (), jax.eval_shape(optimizer.init, params), key)
    placed = layout.of_state(state)
    assert tuple(placed.params["up"]["kernel"].spec) == ("fsdp", "tensor")
    moments = [
        (path_name(path), leaf, sharding.spec)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(state.opt_state),
            jax.tree.leaves(placed.opt_state),
            strict=True,
        )
    ]
    alike = [spec for _, leaf, spec in moments if leaf.shape == (64, 128)]
    assert all(tuple(spec) == ("fsdp", "tensor") for spec in alike)
    assert len(alike) == {"adamw": 2, "adafactor": 1, "muon": 1}[name]
    assert all(not any(spec) for _, leaf, spec in moments if leaf.size < 4096)
