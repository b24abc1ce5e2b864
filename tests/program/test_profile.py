"""A profile puts the time of a step down to layers and kinds, and adds up."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import program
from functorch_kit.errors import UserError
from functorch_kit.program.hlo import hlo_text, read_module
from functorch_kit.program.operation_kinds import KINDS, direction_of, kernel_kind, layer_of
from functorch_kit.program.operation_kinds import operation_of as place
from functorch_kit.program.trace_events import Event, Trace, read_trace
from functorch_kit.program.wall_time import divide


def operations(fn, *args):
    """Every operation that a compiled function's own (not fused) instructions belong to."""
    module = read_module(hlo_text(jax.jit(fn).lower(*args).compile()))
    return {place(module, each) for each in module.instructions.values()}


def kinds(fn, *args):
    return {operation.kind for operation in operations(fn, *args)}


def conv(x, w):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)


# What an operation is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "shapes", "kind"),
    [
        pytest.param(jnp.matmul, [(32, 32), (32, 32)], "matrix product", id="product"),
        pytest.param(conv, [(2, 8, 8, 4), (3, 3, 4, 8)], "convolution", id="convolution"),
        pytest.param(lambda x: jnp.exp(x) + x, [(32, 16)], "elementwise", id="elementwise"),
        pytest.param(lambda x: x.transpose(2, 0, 1), [(3, 4, 5)], "copy and transpose", id="move"),
        pytest.param(lambda x: jnp.sort(x), [(32,)], "sort and solve", id="sort"),
        pytest.param(jnp.linalg.cholesky, [(8, 8)], "sort and solve", id="library"),
        pytest.param(
            lambda x: jax.random.normal(jax.random.key(0), x.shape) * x, [(64, 64)],
            "random numbers", id="random",
        ),
        pytest.param(lambda x: x.sum(), [(64, 64)], "reduction", id="reduction"),
        pytest.param(
            lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x), [(16, 16)],
            "loop and call", id="loop",
        ),
    ],
)  # fmt: skip
def test_an_operation_is_known_by_what_it_does(fn, shapes, kind):
    found = kinds(fn, *(jnp.ones(shape) for shape in shapes))
    assert kind in found
    assert found <= set(KINDS)


def test_a_collective_is_known():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    summed = jax.shard_map(
        lambda x: jax.lax.psum(x, "d"), mesh=mesh, in_specs=spec("d"), out_specs=spec()
    )
    assert "collective" in kinds(summed, jnp.ones((4, 8)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("__onednn$matmul", "matrix product"),
        ("__cublas$lt$matmul", "matrix product"),
        ("__cudnn$convBiasActivationForward", "convolution"),
        ("__cudnn$fmhaSoftmaxBackward", "matrix product"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "matrix product"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "collective"),
        ("MemcpyD2D", "copy and transpose"),
        ("wrapped_convert", "unknown"),
    ],
)
def test_a_kernel_without_metadata_is_judged_by_its_name(name, kind):
    assert kernel_kind(name) == kind


@pytest.mark.parametrize(
    ("op_name", "layer", "direction"),
    [
        ("", "", "outside"),
        ("jit(step)/sub", "", "outside"),
        ("jit(step)/jvp(blocks)/0/mlp/dot_general", "blocks/0/mlp", "forward"),
        ("jit(step)/transpose(jvp(blocks))/0/mlp/transpose", "blocks/0/mlp", "backward"),
        ("jit(step)/blocks/while/body/closed_call/layer/tanh", "blocks/layer", "outside"),
        ("jit(step)/jvp(head)/bij,bjk->bik/dot_general", "head", "forward"),
        ("jit(step)/transpose(jvp(jit(take_along_axis)))/scatter-add", "", "backward"),
        ("jit(step)/jvp(drop)/jit(_threefry_fold_in)/part_key/while", "drop", "forward"),
        ("jit(step)/jit(shared)/blocks/custom_jvp_call/max", "blocks", "outside"),
        ("jit(step)/jvp(head)/mul;jit(step)/tail/add", "head", "forward"),
        ("jit(step)/jvp(blocks)/while/body/eval_jaxpr/layer/tanh", "blocks/layer", "forward"),
        ("jit(step)/vmap(blocks/0)/conv(3)/mul", "blocks/0/conv(3)", "outside"),
    ],
)
def test_an_op_name_becomes_a_layer_and_a_direction(op_name, layer, direction):
    assert (layer_of(op_name), direction_of(op_name)) == (layer, direction)


def test_the_text_of_a_program_is_read_with_tuples_and_comments():
    module = read_module(
        """HloModule jit_f, is_scheduled=true
%region (a: f32[]) -> f32[] {
  ROOT %negate.1 = f32[] negate(%a)
}
ENTRY %main {
  %w = (s32[], /*index=1*/f32[2]{0:T(8)}) while(%t), condition=%c, body=%region
  %x = f32[] conditional(%w, %t), branch_computations={%region, %other}
  ROOT %y = f32[4]{0} custom-call(%x), custom_call_target="__onednn$matmul"
}"""
    )
    assert module.instructions["w"].called == ("c", "region")
    assert module.instructions["x"].called == ("region", "other")
    assert module.instructions["x"].operands == ("w", "t")
    assert module.instructions["y"].target == "__onednn$matmul"
    assert [each.name for each in module.inside(module.instructions["w"])] == ["negate.1"]


def test_a_copy_that_xla_made_counts_to_what_reads_it():
    module = read_module(
        """HloModule jit_f
ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  %copy.1 = f32[2]{0} copy(%a)
  ROOT %b = f32[2]{0} negate(%copy.1), metadata={op_name="jit(f)/jvp(act)/neg"}
}"""
    )
    assert place(module, module.instructions["copy.1"]) == ("act", "forward", "copy and transpose")


FUSED = """HloModule jit_f
%fused (p: f32[2,2], q: f32[2,2]) -> f32[2,2] {
  %p = f32[2,2]{1,0} parameter(0)
  %q = f32[2,2]{1,0} parameter(1)
  %d = f32[2,2]{1,0} OPCODE(%p, %q), metadata={op_name="jit(f)/transpose(jvp(dense))/dot_general"}
  ROOT %n = f32[2,2]{1,0} negate(%d), metadata={op_name="jit(f)/jvp(pool)/neg"}
}
ENTRY %main (a: f32[2,2]) -> f32[2,2] {
  %a = f32[2,2]{1,0} parameter(0)
  ROOT %f = f32[2,2]{1,0} fusion(%a, %a), kind=kCustom, calls=%fused,
 metadata={op_name="jit(f)/jvp(pool)/neg"}
}""".replace(",\n", ",")


def test_a_fusion_counts_to_the_layer_of_its_matrix_product():
    module = read_module(FUSED.replace("OPCODE", "dot"))
    assert place(module, module.instructions["f"]) == ("dense", "backward", "matrix product")


def test_arithmetic_on_indices_does_not_make_a_copy_elementwise():
    module = read_module(
        """HloModule jit_f
%fused (p: f32[9,64], i: s32[]) -> f32[1,64] {
  %p = f32[9,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %j = s32[] add(%i, %i)
  ROOT %d = f32[1,64]{1,0} dynamic-slice(%p, %j, %i), dynamic_slice_sizes={1,64}
}
ENTRY %main (a: f32[9,64], b: s32[]) -> f32[1,64] {
  %a = f32[9,64]{1,0} parameter(0)
  %b = s32[] parameter(1)
  ROOT %f = f32[1,64]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused
}"""
    )
    assert place(module, module.instructions["f"]).kind == "copy and transpose"


def test_a_forward_operation_that_is_repeated_in_the_backward_pass_counts_as_backward():
    module = read_module(FUSED.replace("OPCODE", "add"))
    assert place(module, module.instructions["f"]) == ("pool", "backward", "elementwise")


# Whose the time is --------------------------------------------------------------------------------


def s(line, name, start, end):
    return Event(line, name, start * 1e9, end * 1e9, "")


def division(events, in_flight=(), windows=((0.0, 10.0),), loops=()):
    windows = tuple((start * 1e9, end * 1e9) for start, end in windows)
    trace = Trace(windows, tuple(events), tuple(in_flight), False)
    spent = divide(trace, lambda event: event.name in loops)
    return spent, {name: seconds for (name, _), seconds in spent.operations.items()}


def test_operations_at_the_same_time_share_it():
    spent, parts = division([s(0, "a", 1, 5), s(1, "b", 3, 7)])
    assert parts == {"a": 3.0, "b": 3.0}
    assert (spent.host, spent.unexplained, spent.wall, spent.busy) == (4.0, 0.0, 10.0, 8.0)


def test_an_operation_on_two_threads_counts_its_wall_time_once():
    spent, parts = division([s(0, "a", 2, 6), s(1, "a", 2, 6)])
    assert parts == {"a": 4.0}
    assert spent.busy == 8.0


def test_a_gap_between_operations_is_unexplained_and_the_ends_are_the_hosts():
    spent, parts = division([s(0, "a", 1, 2), s(0, "b", 5, 8)])
    assert (spent.host, spent.unexplained) == (1 + 2, 3.0)
    assert sum(parts.values()) + spent.host + spent.unexplained == spent.wall


def test_work_in_flight_fills_only_what_nothing_else_explains():
    spent, parts = division(
        [s(0, "a", 1, 2), s(0, "b", 5, 8)], in_flight=[s(0, "a", 1, 6)], windows=[(1, 8)]
    )
    assert parts == {"a": 4.0, "b": 3.0}
    assert spent.unexplained == spent.host == 0


def test_a_loop_counts_only_while_nothing_inside_it_runs():
    _, parts = division([s(0, "while", 0, 10), s(1, "dot", 2, 9)], loops=("while",))
    assert parts == {"while": 3.0, "dot": 7.0}


def test_work_in_flight_is_known_better_than_the_loop_around_it():
    events = [s(0, "while", 0, 10), s(0, "dot", 2, 3)]
    _, parts = division(events, in_flight=[s(0, "dot", 2, 9)], loops=("while",))
    assert parts == {"while": 3.0, "dot": 7.0}


def test_what_is_outside_the_steps_does_not_count():
    spent, parts = division([s(0, "a", 0, 20)], windows=[(2, 4), (6, 7)])
    assert (spent.wall, parts) == (3.0, {"a": 3.0})


# Recordings ---------------------------------------------------------------------------------------


def line(name, *events):
    keys = ("name", "start_ns", "duration_ns", "stats")
    return SimpleNamespace(
        name=name, events=[SimpleNamespace(**dict(zip(keys, e, strict=True))) for e in events]
    )


@pytest.fixture
def recording(monkeypatch):
    def record(*planes):
        planes = [SimpleNamespace(name=name, lines=list(lines)) for name, *lines in planes]
        data = SimpleNamespace(from_file=lambda path: SimpleNamespace(planes=planes))
        monkeypatch.setattr(jax.profiler, "ProfileData", data)
        return read_trace(Path("any.xplane.pb"), "step")

    return record


STEP = line("python", ("step", 0, 100, []))


def test_on_a_cpu_the_threads_are_read_and_what_ended_later_was_in_flight(recording):
    dot = [("hlo_op", "dot.3"), ("hlo_module", "jit_f")]
    thread = line(
        "tf_XLAExecute/1", ("ThunkExecutor::Execute", 0, 90, []), ("dot.3", 10, 5, dot),
        ("end: dot.3", 40, 2, []),
    )  # fmt: skip
    trace = recording(("/host:CPU", STEP, thread))
    assert trace.windows == ((0, 100),)
    assert trace.events == (Event(1, "dot.3", 10, 15, "jit_f"),)
    assert trace.in_flight == (Event(1, "dot.3", 10, 40, "jit_f"),)
    assert not trace.on_device


def test_a_device_plane_is_preferred_to_the_hosts_threads(recording):
    thread = line("tf_XLAEigen/1", ("copy.1", 0, 9, [("hlo_op", "copy.1")]))
    kernel = ("sm90_gemm", 20, 30, [("hlo_op", "gemm.4"), ("hlo_module", "jit_f")])
    memcpy = ("MemcpyD2D", 50, 4, [])
    stream = line("Stream #16(Compute)", kernel, memcpy)
    trace = recording(
        ("/device:GPU:0", stream, line("Steps", ("0", 0, 99, []))), ("/host:CPU", STEP, thread)
    )
    assert trace.on_device
    assert [event.name for event in trace.events] == ["gemm.4", "MemcpyD2D"]


def test_a_tpus_line_of_operations_is_read_by_the_instructions_name(recording):
    operation = ("%fusion.7 = f32[8]{0} fusion(f32[8]{0} %p), kind=kLoop", 5, 10, [])
    trace = recording(("/device:TPU:0", line("XLA Ops", operation)), ("/host:CPU", STEP))
    assert trace.events == (Event(0, "fusion.7", 5, 15, ""),)


# Profiles -----------------------------------------------------------------------------------------


def two_layers(state, x):
    def loss(w):
        with jax.named_scope("large"):
            y = jnp.tanh(x @ w["large"])
        with jax.named_scope("small"):
            return (y @ w["small"]).mean()

    value, gradient = jax.value_and_grad(loss)(state)
    return jax.tree.map(lambda w, g: w - 0.1 * g, state, gradient), value


def arguments():
    return {"large": jnp.ones((512, 256)), "small": jnp.ones((256, 2))}, jnp.ones((1024, 512))


@pytest.mark.smoke
def test_the_parts_add_up_to_the_step_and_the_large_layers_product_leads(tmp_path):
    found = program.profile(two_layers, *arguments(), carry=0, steps=3, folder=tmp_path)
    total = found.explained_seconds + found.host_seconds + found.unexplained_seconds
    assert total == pytest.approx(found.step_seconds, rel=1e-9)
    assert sum(row["share"] for row in found.by_kind()) == pytest.approx(1)
    assert all(0 <= record.share <= 1 for record in found.records)
    assert found.by_layer()[0]["path"] == "large"
    assert found.by_kind()[0]["kind"] == "matrix product"
    assert {"forward", "backward"} <= {r.direction for r in found.records if r.path == "large"}
    assert {record.path for record in found.records} <= {"large", "small", ""}
    assert found.trace_file is not None
    assert Path(found.trace_file).is_file()
    assert "unexplained" in str(found)
    assert found.trace_file in str(found)


def scanned(w, x):
    def body(h, w):
        with jax.named_scope("layer"):
            return jnp.tanh(h @ w), None

    def loss(w):
        with jax.named_scope("blocks"):
            return jax.lax.scan(jax.checkpoint(body), x, w)[0].mean()

    return w - jax.grad(loss)(w)


def test_the_layers_inside_a_scan_and_a_rematerialization_keep_their_path():
    w, x = jnp.ones((4, 128, 128)), jnp.ones((256, 128))
    found = program.profile(scanned, w, x, carry=0, steps=2)
    assert {record.path for record in found.records} <= {"blocks/layer", "blocks", ""}
    assert found.by_layer()[0]["path"] == "blocks/layer"
    (product,) = [r for r in found.by_kind() if r["kind"] == "matrix product"]
    assert product["backward"] > product["forward"] > 0


def test_the_callers_arrays_outlive_a_program_that_donates_them():
    args = arguments()
    step = program.compile(two_layers, *args, name="step", donate=(0,))
    found = program.profile(step, *args, carry=0, steps=1)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(args))
    assert (found.name, found.trace_file) == ("step", None)


def test_what_jax_compiled_ahead_of_time_is_profiled_too():
    compiled = jax.jit(two_layers).lower(*arguments()).compile()
    assert program.profile(compiled, *arguments(), steps=1).records


def test_two_recordings_at_once_are_refused_in_one_line(tmp_path):
    with jax.profiler.trace(str(tmp_path)), pytest.raises(UserError) as refused:
        program.profile(two_layers, *arguments(), carry=0, steps=1)
    assert "\n" not in str(refused.value)
    assert "stop the other" in str(refused.value)


def test_no_steps_are_refused():
    with pytest.raises(program.ProfileError, match="give 1 or more"):
        program.profile(two_layers, *arguments(), steps=0)


def test_a_slow_recording_and_a_nameless_program_are_noted():
    found = program.profile(jnp.sin, jnp.ones(9), steps=1)
    assert any("jax.named_scope" in note for note in found.notes)
