"""Rates are shares of what the device could do; one above 100 % is an error, and is said."""

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import program
from functorch_kit.errors import UserError
from functorch_kit.program import Ceilings, device_ceilings

H100 = Ceilings("NVIDIA H100 80GB HBM3", "gpu", "bfloat16", 700e12, 3e12, 989.4e12, "bfloat16")


# The vendors' figures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "arithmetic", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H200", "float16", 989.4),
        ("NVIDIA H200", "tensorfloat32", 494.7),
        ("NVIDIA H200 NVL", "bfloat16", 835.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA A100-PCIE-40GB", "float32", 19.5),
        ("NVIDIA L40S", "bfloat16", 362.0),
        ("NVIDIA L4", "bfloat16", 121.0),
        ("Tesla V100-SXM2-16GB", "float16", 125.0),
        ("TPU v4", "bfloat16", 275.0),
        ("TPU v5 lite", "bfloat16", 197.0),
        ("TPU v5e", "bfloat16", 197.0),
        ("TPU v5p", "bfloat16", 459.0),
        ("TPU v5", "bfloat16", 459.0),
        ("TPU v6 lite", "bfloat16", 918.0),
    ],
)
def test_the_dense_figure_of_a_known_device_is_found(device, arithmetic, teraflops):
    assert program.peak_flops(device, arithmetic) == teraflops * 1e12


@pytest.mark.parametrize(
    ("device", "arithmetic"),
    [
        ("cpu", "float32"),
        ("NVIDIA H300", "bfloat16"),
        ("Tesla T4", "bfloat16"),
        ("Tesla V100-SXM2-16GB", "tensorfloat32"),
        ("TPU v4", "float32"),
        ("NVIDIA H100 80GB HBM3", "int8"),
    ],
)
def test_what_the_table_does_not_know_is_none(device, arithmetic):
    assert program.peak_flops(device, arithmetic) is None


def test_float32_is_multiplied_in_less_unless_more_is_asked_for():
    assert program.arithmetic_of(jnp.float32, "gpu", "NVIDIA H200") == "tensorfloat32"
    assert program.arithmetic_of(jnp.float32, "gpu", "Tesla V100-SXM2-16GB") == "float32"
    assert program.arithmetic_of(jnp.float32, "tpu", "TPU v4") == "bfloat16"
    assert program.arithmetic_of(jnp.float32, "cpu") == "float32"
    assert program.arithmetic_of(jnp.bfloat16, "gpu", "NVIDIA H200") == "bfloat16"
    with jax.default_matmul_precision("highest"):
        assert program.arithmetic_of(jnp.float32, "gpu", "NVIDIA H200") == "float32"


# Ceilings -----------------------------------------------------------------------------------------


def test_a_ceiling_is_what_the_clock_says(monkeypatch):
    class Slow:
        samples = (4.0, 2.0, 8.0)

    monkeypatch.setattr(device_ceilings, "measure", lambda *args, **options: Slow)
    found = program.ceilings(size=100, copy_size=4_000)
    assert found.matmul_flops == 2 * 100**3 / 2.0
    assert found.copy_bytes == 2 * 4_000 / 2.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_each_dtype_has_a_ceiling_of_its_own(dtype):
    found = program.ceilings(dtype, size=32, copy_size=400, rounds=1)
    assert found.dtype == jnp.dtype(dtype).name
    assert found.peak_flops is None  # no vendor states one for this CPU


def test_a_product_faster_than_the_vendor_says_is_an_error_in_the_measuring(monkeypatch):
    monkeypatch.setattr(device_ceilings, "peak_flops", lambda *_: 1.0)
    (warning,) = program.ceilings(size=32, copy_size=400, rounds=1).warnings
    assert "error in the measuring" in warning


# Shares -------------------------------------------------------------------------------------------


def test_shares_are_of_the_vendors_figure_and_of_the_measured_product():
    found = program.utilization(8 * 350e12, 1.0, H100, devices=8)
    assert found.flops_per_second == 350e12
    assert found.of_matmul == pytest.approx(0.5)
    assert found.of_peak == pytest.approx(350 / 989.4)
    assert found.warnings == ()


def test_a_share_above_100_percent_is_said_and_not_given():
    found = program.utilization(1029e12, 1.0, H100)  # "104 % MFU"
    assert (found.of_peak, found.of_matmul) == (None, None)
    assert [line for line in found.warnings if "104 % of the vendor's bfloat16 figure" in line]
    assert all("error in the measuring" in line for line in found.warnings)


def test_just_above_100_percent_is_not_rounded_away():
    (warning,) = program.utilization(700.1e12, 1.0, H100).warnings
    assert "more than 100 %" in warning


# The roofline -------------------------------------------------------------------------------------

LAPTOP = Ceilings("cpu", "cpu", "float32", 100e9, 20e9, None, "float32")


def matmul_program(size: int):
    return program.compile(jnp.matmul, *[jnp.ones((size, size))] * 2, name="product")


def test_a_large_product_is_bound_by_arithmetic_and_a_small_one_by_memory():
    # 2 n^3 operations over 3 arrays of 4 n^2 bytes: n / 6 FLOPs a byte; the ridge is 5.
    large = program.roofline(matmul_program(60), 1e-3, measured=LAPTOP)
    small = program.roofline(matmul_program(12), 1e-3, measured=LAPTOP)
    assert (large.intensity, small.intensity) == (10.0, 2.0)
    assert (large.bound, small.bound) == ("arithmetic", "memory")
    assert (large.attainable_flops, small.attainable_flops) == (100e9, 40e9)
    assert large.of_attainable == pytest.approx(2 * 60**3 / 1e-3 / 100e9)
    assert large.to_dict()["utilization"]["of_matmul"] == large.of_attainable


def test_a_rate_above_the_memory_roof_is_said():
    found = program.roofline(matmul_program(12), 2 * 12**3 / 80e9, measured=LAPTOP)
    assert found.of_attainable is None
    assert "200 % of the memory roof" in found.warnings[0]


def test_a_program_without_arithmetic_has_no_roofline():
    move = program.compile(lambda x: x.T, jnp.ones((3, 4)), name="move")
    with pytest.raises(UserError, match="'move' has no floating-point operation"):
        program.roofline(move, 1.0, measured=LAPTOP)


# Bytes --------------------------------------------------------------------------------------------


def compiled(fn, *shapes):
    return jax.jit(fn).lower(*(jnp.ones(shape) for shape in shapes)).compile()


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        pytest.param(jnp.matmul, [(64, 32), (32, 16)], id="product"),
        pytest.param(lambda x: jnp.tanh(x) + 1, [(50, 7)], id="elementwise"),
        pytest.param(jax.nn.softmax, [(64, 64)], id="softmax"),
        pytest.param(jax.grad(lambda w: jnp.tanh(w @ w).sum()), [(64, 64)], id="gradient"),
    ],
)
def test_bytes_agree_with_xla_where_there_is_no_loop(fn, shapes):
    program_ = compiled(fn, *shapes)
    analysis = program_.cost_analysis()
    assert analysis is not None
    assert program.bytes_moved(program_) == pytest.approx(analysis["bytes accessed"], rel=0.01)


def test_bytes_of_a_scan_count_its_body_as_often_as_it_runs():
    def scanned(w):
        return jax.lax.scan(lambda w, _: (w @ w, None), w, None, length=50)[0]

    # Each pass reads the matrix twice and writes it once.
    assert program.bytes_moved(compiled(scanned, (64, 64))) == pytest.approx(
        50 * 3 * 64 * 64 * 4, rel=0.4
    )


def test_a_scan_over_rows_reads_each_row_and_not_the_whole_every_time():
    def scanned(xs, w):
        return jax.lax.scan(lambda c, x: (c + x @ w, None), jnp.zeros((64, 64)), xs)[0]

    moved = program.bytes_moved(compiled(scanned, (100, 64, 64), (64, 64)))
    assert moved is not None
    assert moved < 100 * 12 * 64 * 64 * 4  # the whole each time would be 100 * 100 of those


# Libraries ----------------------------------------------------------------------------------------

GPU = """HloModule jit_f
ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %g = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  %l = f32[8,8]{1,0} custom-call(%a, %a), custom_call_target="__cublas$lt$matmul"
  %c = f32[8,8]{1,0} custom-call(%a, %a), custom_call_target="__cudnn$convForward"
  %d = f32[8,8]{1,0} custom-call(%a, %a), custom_call_target="__cudnn$convBackwardInput"
  %s = f32[8,8]{1,0} custom-call(%a), custom_call_target="Sharding"
  %t = f32[8,8]{1,0} fusion(%a), kind=kCustom, calls=%f, backend_config={"kind":"__triton_gemm"}
  %e = f32[8,8]{1,0} dot(%a, %a)
  ROOT %m = f32[8,8]{1,0} custom-call(%a), custom_call_target="my_kernel"
}"""


def test_the_libraries_of_a_gpu_program_are_counted():
    found = program.library_calls(GPU, platform="gpu")
    assert found == {"cuDNN": 2, "cuBLAS": 1, "cuBLASLt": 1, "Triton": 1, "my_kernel": 1}


def test_onednn_is_known_and_a_lone_product_on_a_cpu_is_eigens():
    text = GPU.replace("__cublas$gemm", "__onednn$matmul")
    found = program.library_calls(text, platform="cpu")
    assert (found["oneDNN"], found["Eigen"]) == (1, 1)


def test_this_machines_products_are_a_librarys():
    found = program.library_calls(matmul_program(64))
    assert sum(found.values()) == 1
    assert found.keys() <= {"YNNPACK", "oneDNN", "Eigen", "XNNPACK"}
    assert program.library_calls(compiled(jnp.sin, (4,))) == {}
    assert program.library_calls(compiled(jnp.linalg.cholesky, (4, 4))) == {"LAPACK": 1}
