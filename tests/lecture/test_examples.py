"""Each of the lecture's nineteen examples runs, and what it claims is true."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

Load = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[2]
LECTURE = ROOT / "experiments" / "lecture"
EXAMPLES = sorted(path.stem for path in LECTURE.glob("[0-9][0-9]_*.py"))
QUICK = argparse.Namespace(quick=True)


def test_there_are_nineteen_examples():
    assert [int(name[:2]) for name in EXAMPLES] == list(range(1, 20))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_holds_what_it_claims(load: Load, capsys: pytest.CaptureFixture[str], name: str):
    example, classroom = load(name), load("classroom")
    options = {"options": example.add_options} if hasattr(example, "add_options") else {}
    code = classroom.run(example.example, arguments=["--quick"], **options)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert printed.startswith(f"Example {int(name[:2])}: ")
    assert "  yes: " in printed
    for system in systems_of(load, name):  # what the page quotes of this script is printed
        assert system.told(printed, Path())


def systems_of(load: Load, script: str) -> list[Any]:
    """Rows of the table of systems whose command is this script."""
    systems = load("systems").SYSTEMS
    return [each for each in systems if Path(each.command.split()[0]).stem == script]


def test_a_claim_that_does_not_hold_is_told_and_ends_with_code_one(
    load: Load, capsys: pytest.CaptureFixture[str]
):
    classroom = load("classroom")

    def example(options: argparse.Namespace):
        return classroom.Shown({"loss": 0.5}, {"it trains": True, "it flies": False})

    assert classroom.run(example, arguments=[]) == 1
    assert "  yes: it trains\n  NO: it flies\n" in capsys.readouterr().out


def test_the_sets_have_the_lectures_sizes_and_are_standard_normal(load: Load):
    classroom = load("classroom")
    for name, outputs in {"A": 1000, "B": 10}.items():
        x, y, (w1, w2) = classroom.data_set(name)
        assert x.shape == (64, 1000)
        assert y.shape == (64, outputs)
        assert w1.shape == (1000, 100)
        assert w2.shape == (100, outputs)
        for array in (x, y, w1, w2):
            # Means and variances of n standard normal numbers, five standard errors wide.
            n = array.size
            assert abs(float(array.mean())) < 5 / n**0.5
            assert abs(float(array.var()) - 1) < 5 * (2 / n) ** 0.5


def test_by_hand_autograd_and_a_custom_function_agree_in_float64(load: Load, x64: None):
    classroom, hand = load("classroom"), load("09_by_hand")
    autograd = jax.value_and_grad(classroom.loss_b)
    custom = jax.value_and_grad(load("11_custom_function").loss)
    losses, weights = hand.trained(hand.by_hand)
    assert losses.dtype == np.float64
    for gradients in (autograd, custom):
        others, ends = hand.trained(gradients)
        np.testing.assert_allclose(others, losses, rtol=1e-12, atol=1e-12)
        for found, expected in zip(ends, weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_backward_pass_by_hand_is_the_slope_of_the_loss(load: Load, x64: None):
    classroom, hand = load("classroom"), load("09_by_hand")
    x, y, weights = classroom.data_set("B")
    _, slopes = hand.by_hand(weights, x, y)
    random = np.random.default_rng(1)
    way = tuple(random.standard_normal(weight.shape) for weight in weights)
    along = sum(float((slope * step).sum()) for slope, step in zip(slopes, way, strict=True))

    def loss_at(distance: float) -> float:
        there = tuple(w + distance * step for w, step in zip(weights, way, strict=True))
        return float(classroom.loss_b(there, x, y))

    # A central difference: on the way a few ReLUs switch, which costs it some digits.
    assert (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6 == pytest.approx(along, rel=1e-5)


def test_weights_that_were_kept_are_used_again_and_missing_ones_are_named(
    load: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    classroom, pretrained = load("classroom"), load("16_pretrained")

    def run(*words: str) -> int:
        arguments = ["--quick", *words]
        return classroom.run(
            pretrained.example, options=pretrained.add_options, arguments=arguments
        )

    assert run("--keep", str(tmp_path)) == 0
    capsys.readouterr()
    assert run("--weights", str(tmp_path)) == 0
    assert "yes: the logits are finite" in capsys.readouterr().out
    assert run("--net", "alexnet", "--weights", str(tmp_path / "nowhere")) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert "nowhere" in complaint
    assert complaint.count("\n") == 1


def test_weights_in_torchvisions_layout_are_read_from_a_file(load: Load, tmp_path: Path):
    pretrained = load("16_pretrained")
    config = pretrained.fk.models.AlexNetConfig(outputs=3, dense=2)
    model, images = pretrained.fk.models.alexnet(config), np.zeros((1, 64, 64, 3), np.float32)
    specs = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    params, _ = jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32), specs)
    file = tmp_path / "alexnet.safetensors"
    pretrained.fk.interop.torchvision(config).save(file, params, ())
    found, _ = pretrained.read_weights(file, config, specs)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert np.array_equal(one, other)


def test_an_example_is_one_command(script: Callable[..., Any], tmp_path: Path):
    ended = script("experiments/lecture/01_gradients.py", "--quick")
    assert ended.returncode == 0, ended.stderr
    assert "yes: the gradient of x is y" in ended.stdout
    assert list(tmp_path.iterdir()) == []
