"""The summary: a row per part, in order of execution, that adds up to the whole."""

import json

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from functorch_kit import nn, program
from functorch_kit.types import Model

F32 = jnp.float32


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, F32)


def cnn() -> Model:
    return nn.serial(
        conv=nn.conv(8, (3, 3)),
        act=nn.relu,
        pool=nn.max_pool((2, 2)),
        flat=nn.flatten(),
        head=nn.dense(10),
    )


def columns(found: program.Summary) -> list[tuple[str, str, int]]:
    return [(row.path, row.output, row.params) for row in found.rows]


def test_parts_come_in_order_of_execution_with_shape_and_parameters():
    assert columns(program.summary(cnn(), spec(4, 28, 28, 1))) == [
        ("conv", "float32[4,28,28,8]", 3 * 3 * 1 * 8 + 8),
        ("act", "float32[4,28,28,8]", 0),
        ("pool", "float32[4,14,14,8]", 0),
        ("flat", "float32[4,1568]", 0),
        ("head", "float32[4,10]", 1568 * 10 + 10),
    ]


def test_operations_are_those_of_the_closed_forms():
    found = {row.path: row.flops for row in program.summary(cnn(), spec(4, 28, 28, 1)).rows}
    assert found["conv"] == 2 * 4 * 28 * 28 * 8 * 9 + 4 * 28 * 28 * 8
    assert found["head"] == 2 * 4 * 1568 * 10 + 40
    assert found["flat"] == 0


def test_rows_add_up_to_the_totals_and_to_what_the_model_has():
    model, x = cnn(), spec(4, 28, 28, 1)
    found = program.summary(model, x)
    params, state = jax.eval_shape(lambda key: model.init(key, x), jax.random.key(0))
    assert found.params == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found.flops == program.flops(lambda p, x: model.apply(p, state, x)[0], params, x)
    assert found.params == sum(row.params for row in found.rows)
    assert found.flops == sum(row.flops for row in found.rows)


def test_parts_inside_parts_have_rows_and_what_is_around_them_has_totals():
    block = nn.serial(fc=nn.dense(6), act=nn.relu)
    model = nn.serial(blocks=nn.serial(nn.residual(block), nn.residual(block)), head=nn.dense(2))
    found = program.summary(model, spec(3, 6))
    inner = [row.path for row in found.rows if not row.own]
    assert inner[:2] == ["blocks/0/body/fc", "blocks/0/body/act"]
    assert inner[-1] == "head"
    assert found.totals["blocks/0/body"].params == 6 * 6 + 6
    assert found.totals["blocks"].params == 2 * (6 * 6 + 6)
    assert found.totals["blocks/1"].output == "float32[3,6]"
    assert found.totals["blocks"].flops == sum(
        row.flops for row in found.rows if row.path.startswith("blocks")
    )
    assert found.params == 2 * 42 + 14


def test_what_a_part_does_itself_is_a_row_of_its_own():
    model = nn.serial(block=nn.residual(nn.serial(fc=nn.dense(6))))
    found = program.summary(model, spec(3, 6))
    (own,) = [row for row in found.rows if row.own]
    assert (own.path, own.params, own.flops) == ("block", 0, 18)  # the addition
    assert "block (rest)" in str(found)


def test_a_single_unnamed_layer_is_one_row_the_model_itself():
    found = program.summary(nn.dense(3), spec(2, 5))
    assert columns(found) == [("", "float32[2,3]", 18)]
    assert found.rows[0].flops == found.flops == 2 * 2 * 5 * 3 + 6
    assert not found.rows[0].own
    assert "(model) " in str(found)
    # Even one that does nothing.
    assert columns(program.summary(nn.flatten(), spec(2, 5))) == [("", "float32[2,5]", 0)]


def hand_made(repeats: int) -> Model:
    """A model that scans over a part, has a parameter of its own, and two outputs."""

    def init(key, x_spec):
        width = x_spec["x"].shape[-1]
        return {"scale": jnp.ones(()), "layer": {"kernel": jnp.ones((width, width))}}, ()

    def apply(params, model_state, x, *, key=None, train=False):
        def layer(h, _):
            with jax.named_scope("layer"):
                h = checkpoint_name(h @ params["layer"]["kernel"], "layer")
                checkpoint_name(h, "saved for later")  # no part
            return h, None

        h, _ = jax.lax.scan(layer, x["x"], None, length=repeats)
        with jax.named_scope("heads"):
            a, b = (checkpoint_name(part, "heads") for part in jnp.split(h, [1], axis=1))
        return {"a": a * params["scale"], "b": b}, model_state

    return Model(init, apply)


def test_a_part_in_a_scan_counts_as_often_as_it_runs_and_is_one_row():
    found = program.summary(hand_made(5), {"x": spec(4, 3)})
    rows = {row.path: row for row in found.rows}
    assert list(rows) == ["layer", "heads", ""]
    assert (rows["layer"].params, rows["layer"].flops) == (9, 5 * 2 * 4 * 3 * 3)
    assert rows["layer"].output == "float32[4,3]"


def test_several_outputs_and_parameters_outside_any_part_are_shown():
    found = program.summary(hand_made(1), {"x": spec(4, 3)})
    rows = {row.path: row for row in found.rows}
    assert rows["heads"].output == "float32[4,1], float32[4,2]"
    assert (rows[""].params, rows[""].own, rows[""].flops) == (1, True, 4)
    assert found.params == 10


def test_a_shared_part_is_one_row_with_its_parameters_once():
    shared = nn.dense(4)

    def apply(params, model_state, x, *, key=None, train=False):
        for _ in range(2):
            with nn.scope("shared"):
                x, _ = shared.apply(params["shared"], (), x)
                x = checkpoint_name(x, "shared")
        return x, model_state

    model = Model(lambda key, x_spec: ({"shared": shared.init(key, x_spec)[0]}, ()), apply)
    found = program.summary(model, spec(2, 4))
    assert columns(found) == [("shared", "float32[2,4]", 20)]
    assert found.flops == 2 * (2 * 2 * 4 * 4 + 8)


def test_training_mode_gets_a_key_and_evaluation_gets_none():
    seen = []

    def apply(params, model_state, x, *, key=None, train=False):
        seen.append((key is not None, train))
        return x, model_state

    model = Model(lambda key, x_spec: ({}, ()), apply)
    program.summary(model, spec(2))
    program.summary(model, spec(2), train=True)
    assert seen == [(False, False), (True, True)]


def test_nothing_is_allocated():
    # A hundred billion parameters.
    found = program.summary(nn.serial(big=nn.dense(1_000_000)), spec(1, 100_000))
    assert found.params == 100_000 * 1_000_000 + 1_000_000


def test_an_array_serves_as_its_own_spec():
    assert program.summary(nn.dense(3), jnp.ones((2, 5))).params == 18


def test_the_summary_is_ready_for_json_and_aligned_for_reading():
    found = program.summary(cnn(), spec(4, 28, 28, 1))
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["rows"][0]["path"] == "conv"
    assert plain["totals"][""]["params"] == found.params
    lines = str(found).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["total", "float32[4,10]", "15,770", f"{found.flops:,}"]
