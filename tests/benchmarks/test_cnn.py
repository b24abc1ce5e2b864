"""The headline table: its naive convolution is one, its figures stand where they belong."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize(("side", "window", "stride", "pad"), [(5, 2, 1, 1), (7, 3, 2, 1)])
def test_the_naive_convolution_is_xlas_and_so_are_its_gradients(
    load: Load, x64: None, side: int, window: int, stride: int, pad: int
):
    passes, random = load("cnn_passes"), np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, side, side, 3)))
    kernel = jnp.asarray(random.standard_normal((window, window, 3, 4)))
    layout = ("NHWC", "HWIO", "NHWC")

    def out(convolve: Callable[..., jax.Array]):
        def scalar(x: jax.Array, kernel: jax.Array) -> jax.Array:
            pads = [(pad, pad)] * 2
            y = convolve(
                x, kernel, (stride,) * 2, pads, rhs_dilation=(1, 1), dimension_numbers=layout
            )
            return jnp.sum(jnp.sin(y))

        return jax.jit(jax.value_and_grad(scalar, argnums=(0, 1)))(x, kernel)

    found, expected = out(passes.naive_convolution), out(lax.conv_general_dilated)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_a_naive_net_has_no_convolution_left_and_the_same_gradients(load: Load):
    passes = load("cnn_passes")
    fk, images = passes.fk, jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    model = fk.nn.serial(conv=fk.nn.conv(4, (2, 2), strides=2), pool=fk.nn.global_avg_pool())
    slopes: dict[str, Any] = {}
    key = jax.random.key(0)
    for how in ("library", "naive"):
        with passes.convolving(how):
            forward, backward, slopes[how] = passes.passes_of(
                model, images, 4, dtype="float32", how="jit"
            )()
            text = str(jax.make_jaxpr(lambda x: model.apply(*model.init(key, x), x)[0])(images))
        assert min(forward, backward) > 0
        assert "conv_general_dilated" not in text or how == "library"
    for one, other in zip(*map(jax.tree.leaves, slopes.values()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_forward_and_backward_are_two_programs_that_are_compiled_once(load: Load):
    passes = load("cnn_passes")
    fk, images = passes.fk, jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    traced: list[int] = []

    def flat(x: jax.Array) -> jax.Array:
        traced.append(1)
        return x.reshape(2, -1)

    model = fk.nn.serial(flat=fk.nn.lambda_(flat), head=fk.nn.dense(5))
    one_pass = passes.passes_of(model, images, 5, dtype="bf16", how="jit")
    _, _, (slope_of_params, slope_of_images) = one_pass()
    assert slope_of_params["head"]["kernel"].dtype == jnp.float32
    assert slope_of_images.shape == images.shape
    before = len(traced)
    one_pass()
    assert len(traced) == before


def test_the_lectures_totals_are_the_sums_of_its_passes(load: Load):
    for known in load("cnn").LECTURE.values():
        assert known.forward + known.backward == pytest.approx(known.cudnn, abs=0.011)


def test_a_cpu_measures_four_nets_and_a_gpu_all_of_them_and_the_cpu(load: Load):
    cnn = load("cnn")
    options = argparse.Namespace(quick=False, net=None, only=None)
    on_cpu, on_gpu = cnn.plan(options, "cpu"), cnn.plan(options, "gpu")
    assert list(on_cpu) == ["alexnet", "vgg16", "resnet18", "resnet50"]
    assert on_cpu["vgg16"] == ["ours", "naive", "bf16"]
    assert on_cpu["resnet18"] == ["ours", "eager", "naive", "bf16"]
    assert list(on_gpu) == list(cnn.LECTURE)
    assert [net for net, columns in on_gpu.items() if "cpu" in columns] == list(cnn.ON_A_CPU)
    asked = argparse.Namespace(quick=False, net=["resnet200"], only=["naive"])
    assert cnn.plan(asked, "cpu") == {"resnet200": ["ours", "naive"]}


@pytest.fixture
def with_figures(load: Load, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """``with_figures(figures)``: the benchmark, with figures by the words of a contender."""

    def prepare(figures: Callable[[list[str]], float]) -> ModuleType:
        cnn, contest = load("cnn"), load("contest")
        still = {"ceiling_gflops": 100.0, "device": "cpu cpu", "functorch_kit": "0.1.0"}
        monkeypatch.setattr(load("surroundings"), "ceiling", lambda python: still)

        def start(contender: Any, python: str, cache: Path):
            figure = figures(list(contender.command))
            third = figure / 3
            return figure, {"forward_ms": third, "backward_ms": 2 * third, "device": "cpu"}, "x"

        monkeypatch.setattr(contest, "start", start)
        return cnn

    return prepare


def test_the_columns_of_the_lecture_stand_beside_ours_with_its_caveats(
    with_figures: Callable[..., ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    cnn = with_figures(lambda words: 3000.0 if "naive" in words else 1200.0)
    file = tmp_path / "cnn.json"
    assert cnn.main(["--net", "resnet18", "--only", "naive", "--json", str(file)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "resnet18 400.00 800.00 1200 – 3000 – – 2.50 – | 31.54 96.40 2196 3.06 69.62" in printed
    assert "there is no GPU here" in printed
    assert "unfair to the CPU" in printed
    found = json.loads(file.read_text(encoding="utf-8"))
    assert "unfair to the CPU" in found["head"]["caveats"]
    rows = {row["peer"]: row for row in found["rows"]}
    assert list(rows) == ["ours", "naive", "lecture_cudnn", "lecture_no_cudnn", "lecture_cpu"]
    assert rows["naive"]["ratio"] == pytest.approx(0.4)
    assert rows["lecture_cpu"]["ratio"] == pytest.approx(1200 / 2195.78)


def test_a_column_that_fails_is_a_row_that_says_why(
    load: Load, with_figures: Callable[..., ModuleType], capsys: pytest.CaptureFixture[str]
):
    contest = load("contest")

    def figures(words: list[str]) -> float:
        if "naive" in words:
            raise contest.ContenderFailed("out of memory")
        return 1200.0

    assert with_figures(figures).main(["--net", "resnet18", "--only", "naive"]) == 1
    assert "resnet18, naive: theirs failed: out of memory" in capsys.readouterr().out
