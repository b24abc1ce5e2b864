"""Plots: smoothing by hand-worked numbers, the choice of axis, the same picture every time."""

import math
import re
import sys
import xml.etree.ElementTree as ET
from time import perf_counter

import numpy as np
import pytest

from functorch_kit.errors import UserError
from functorch_kit.report import PlotsError, bars, curves
from functorch_kit.report.plots import smooth

pytest.importorskip("matplotlib")


def _rows(values, split="train", name="loss"):
    return [{"step": i + 1, "split": split, name: value} for i, value in enumerate(values)]


def _texts(svg):
    return {element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_smoothing_keeps_constants_and_straight_lines_where_they_are():
    assert np.allclose(smooth(np.full(50, 3.0), window=9), 3.0, atol=1e-12)
    line = smooth(np.arange(201.0), window=8)
    assert abs(line[100] - 100) < 1e-6


def test_smoothing_weighs_neighbours_by_halves_in_a_window_of_two():
    # Weights 1/4, 1/2, 1, 1/2, 1/4 around the middle, 2.5 in all.
    assert smooth([0.0, 0.0, 5.0, 0.0, 0.0], window=2)[2] == pytest.approx(2.0)


def test_smoothing_steps_over_what_is_not_finite():
    out = smooth([1.0, math.nan, 1.0, math.inf, 1.0], window=3)
    assert out.tolist() == pytest.approx([1.0] * 5)
    assert np.isnan(smooth([math.nan, math.nan], window=3)).all()
    assert smooth([], window=3).size == 0


def test_smoothing_takes_noise_away():
    noise = np.random.default_rng(0).normal(size=1000)
    assert smooth(noise, window=20).std() < noise.std() / 4


def test_the_same_rows_give_the_same_bytes():
    rows = _rows(np.random.default_rng(0).uniform(1, 2, 100))
    assert curves(rows, "loss", best_step=40) == curves(rows, "loss", best_step=40)
    assert bars(["a", "b"], [1.0, 2.0]) == bars(["a", "b"], [1.0, 2.0])


def test_noisy_training_is_smoothed_and_a_schedule_is_not():
    noise = np.random.default_rng(0).uniform(1, 2, 100)
    assert "train, smoothed" in _texts(curves(_rows(noise), "loss"))
    assert "train" in _texts(curves(_rows(np.linspace(1, 0, 100), name="learning_rate"),
                                    "learning_rate"))  # fmt: skip


@pytest.mark.parametrize(("last", "logarithmic"), [(0.06, False), (0.04, True), (0.0, False)])
def test_the_axis_is_logarithmic_where_positive_values_span_twenty_times(last, logarithmic):
    assert ("loss, logarithmic" in _texts(curves(_rows([1.0, last]), "loss"))) is logarithmic


def test_shares_are_written_in_per_cent():
    texts = _texts(curves(_rows([0.2, 0.8], name="accuracy"), "accuracy"))
    assert any(text and re.fullmatch(r"\d+ %", text) for text in texts)


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [math.nan], [math.nan, 1.0, math.inf], []])
def test_few_equal_or_broken_values_still_make_a_picture(values):
    assert curves(_rows(values), "loss").endswith("</svg>\n")


def test_a_picture_without_a_finite_value_says_so():
    assert "no finite value" in _texts(curves(_rows([math.nan, math.inf]), "loss"))


def test_rows_without_the_metric_and_values_that_are_no_numbers_are_passed_over():
    rows = [*_rows([1.0, 2.0]), {"step": 3, "split": "train"}, *_rows(["x"], name="loss")]
    assert {"train"} <= _texts(curves(rows, "loss"))


def test_a_long_run_makes_a_small_picture():
    rows = _rows(np.random.default_rng(0).uniform(1, 2, 50_000))
    assert len(curves(rows, "loss")) < 100_000


def test_a_spike_survives_the_thinning():
    values = np.ones(20_000)
    values[::2] += 0.1
    values[7_777] = 50.0
    svg = curves(_rows(values), "loss")
    path = max(re.findall(r' d="([^"]+)"', svg), key=len)
    heights = [float(y) for _, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)]
    assert min(heights) < 0  # above the picture's upper edge, which cuts it off


def test_bars_that_differ_more_than_twenty_times_have_a_logarithmic_axis():
    def said(slow):
        return _texts(bars(["eager", "scan"], [slow, 1e-4], label="time per step"))

    assert "time per step" in said(1.9e-3)
    assert "time per step, logarithmic" in said(2.1e-3)


def test_bars_carry_their_texts():
    svg = bars(["eager", "jit"], [4e-3, 1e-3], low=[3e-3, None], high=[5e-3, None],
               texts=["4 ms", "1 ms · 4 ×"])  # fmt: skip
    assert {"eager", "jit", "4 ms", "1 ms · 4 ×"} <= _texts(svg)


def test_a_png_is_written_where_it_is_asked_for(tmp_path):
    for number, draw in enumerate(
        (
            lambda png: bars(["a"], [1.0], png=png),
            lambda png: curves(_rows([1.0, 2.0]), "loss", png=png),
        )
    ):
        path = tmp_path / f"{number}.png"
        draw(path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_an_error_for_users_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"functorch_kit\[experiments\]") as caught:
        bars(["a"], [1.0])
    assert isinstance(caught.value, PlotsError | ImportError)


def test_settings_of_the_user_are_left_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curves(_rows([1.0, 2.0]), "loss")
    assert dict(matplotlib.rcParams) == before


def test_a_picture_takes_a_fraction_of_a_second():
    rows = _rows(np.random.default_rng(0).uniform(1, 2, 400))
    curves(rows, "loss")
    seconds = []
    for _ in range(3):
        start = perf_counter()
        curves(rows, "loss")
        seconds.append(perf_counter() - start)
    assert min(seconds) < 0.5
