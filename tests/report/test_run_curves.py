"""The curves of a run's page, as a reader finds them in its markup."""

import math
import re
import sys
from html.parser import HTMLParser
from time import perf_counter

import numpy as np
import pytest

from functorch_kit.report.run_curves import run_curves


def rows(values, split="train", name="loss", every=1):
    return [
        {"step": (i + 1) * every, "split": split, name: value} for i, value in enumerate(values)
    ]


class Charts(HTMLParser):
    """Texts by tag, the axes' labels, and the lines with their classes and points."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.ticks, self.lines, self.labels, self._open = {}, [], [], [], []
        self.marks = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self._open.append((tag, found.get("class", "")))
        if tag == "polyline":
            places = [tuple(map(float, each.split(","))) for each in found["points"].split()]
            self.lines.append((found["class"], places))
        if tag == "path" and found["class"].startswith("mark") and found["d"] != "M18 4h0":
            self.marks.append((found["class"], found["d"]))
        if "aria-label" in found:
            self.labels.append(found["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        tag, classes = self._open[-1] if self._open else ("", "")
        self.texts.setdefault(tag, []).append(data)
        if classes.startswith("tick "):
            self.ticks.append((classes.split()[1], data))

    def line(self, classes):
        return [places for each, places in self.lines if each == classes]

    def on(self, side):
        return [text for kind, text in self.ticks if kind == side]


def drawn(logged, best_step=None):
    return Charts(run_curves(logged, best_step))


def test_noisy_training_is_smoothed_with_the_raw_values_behind():
    noise = np.random.default_rng(0).uniform(1, 2, 100)
    chart = drawn(rows(noise))
    assert chart.texts["li"] == ["train, smoothed"]
    [raw], [mean] = chart.line("train raw"), chart.line("train")
    assert len(raw) == 100
    assert np.std([y for _, y in mean]) < np.std([y for _, y in raw]) / 2


def test_a_schedule_and_a_short_run_are_drawn_as_they_are():
    schedule = drawn(rows(np.linspace(1, 0, 100), name="learning_rate"))
    assert schedule.texts["li"] == ["train"]
    assert not schedule.line("train raw")
    assert drawn(rows(np.random.default_rng(0).uniform(1, 2, 24))).texts["li"] == ["train"]


@pytest.mark.parametrize(("last", "logarithmic"), [(0.06, False), (0.04, True), (0.0, False)])
def test_the_axis_is_logarithmic_where_positive_values_span_twenty_times(last, logarithmic):
    chart = drawn(rows([1.0, 0.5, last]))
    assert (", logarithmic" in chart.texts.get("span", [])) is logarithmic


@pytest.mark.parametrize("name", ["accuracy", "learning_rate"])
def test_shares_and_rates_stay_linear(name):
    assert ", logarithmic" not in drawn(rows([1.0, 0.001], name=name)).texts.get("span", [])


def test_places_are_those_of_the_values_on_a_linear_axis():
    # From 2 - 6 % of the span of 4 up to 6 + 6 %; steps 0 to 2 % beyond 4.
    chart = drawn(rows([2.0, 6.0, 4.0, 4.0]))
    [line] = chart.line("train")
    assert [y for _, y in line] == pytest.approx([1000 * (1 - 0.06 / 1.12), 1000 * 0.06 / 1.12,
                                                  500, 500], abs=0.6)  # fmt: skip
    assert [x for x, _ in line] == pytest.approx([1000 * n / 4.08 for n in (1, 2, 3, 4)], abs=0.6)
    assert chart.on("before") == ["2", "3", "4", "5", "6"]
    assert chart.on("under") == ["0", "1", "2", "3", "4"]


def test_shares_are_written_in_per_cent():
    ticks = drawn(rows([0.2, 0.8], name="accuracy")).on("before")
    assert ticks == ["20 %", "30 %", "40 %", "50 %", "60 %", "70 %", "80 %"]


def test_evaluations_are_marked_and_say_their_value():
    logged = rows([1.0, 0.5], "validation", every=20) + rows([0.7], "test", every=40)
    chart = drawn(logged)
    assert [classes for classes, _ in chart.marks] == ["mark validation"] * 2 + ["mark test"]
    assert "validation, step 40: 0.5000" in chart.texts["title"]


def test_many_evaluations_have_a_line_of_another_form_instead_of_marks():
    chart = drawn(rows(np.linspace(1, 2, 61), "validation"))
    assert not chart.marks
    assert len(chart.line("validation plain")) == 1


def test_a_gap_is_left_where_a_value_is_not_finite():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0]
    pieces = drawn(rows(values)).line("train")
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    assert pieces[1][0] == pieces[1][1]  # a value between two that are not finite is a dot


def test_the_best_step_is_marked_and_explained():
    html = run_curves(rows([3.0, 1.0, 2.0], "validation", every=100), 200)
    [line] = Charts(html).line("best")
    assert line == [(pytest.approx(1000 / 1.53, abs=0.6), 1000.0), (line[0][0], 0.0)]
    assert "The dotted line marks the best step." in html
    assert "dotted" not in run_curves(rows([1.0]), None)


def test_a_spike_goes_beyond_the_axis_and_leaves_the_rest_its_room():
    values = np.ones(20_000)
    values[::2] += 0.1
    values[7_777] = 50.0
    chart = drawn(rows(values))
    [raw] = chart.line("train raw")
    assert min(y for _, y in raw) < 0
    assert max(float(text) for text in chart.on("before")) < 2


def test_a_long_run_makes_a_small_chart():
    logged = rows(np.random.default_rng(0).uniform(1, 2, 50_000))
    assert len(run_curves(logged, None)) < 20_000


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [math.nan, 1.0, math.inf], [-1e308, 1e308],
                                    [5e-324, 1.7e308], [1e300] * 3, [0.0] * 30])  # fmt: skip
def test_few_equal_or_extreme_values_make_a_chart_of_finite_places(values):
    chart = drawn(rows(values))
    places = [number for _, line in chart.lines for place in line for number in place]
    assert places
    assert all(math.isfinite(number) for number in places)
    assert chart.on("before")


@pytest.mark.parametrize("values", [[math.nan], [math.nan, math.inf]])
def test_a_metric_without_a_finite_value_says_so(values):
    assert "no finite value" in drawn(rows(values)).texts["p"]


def test_rows_without_the_metric_and_values_that_are_no_numbers_are_passed_over():
    logged = [*rows([1.0, 2.0]), {"step": 3, "split": "train"}, *rows(["x"])]
    [line] = drawn(logged).line("train")
    assert len(line) == 2
    assert run_curves([], None) == run_curves([{"step": 1, "split": "train"}], None) == ""


def test_a_run_that_was_evaluated_before_its_first_step_is_drawn():
    assert drawn([{"step": 0, "split": "validation", "loss": 1.0}]).on("under") == ["0"]


def test_who_sees_no_picture_is_told_where_each_curve_begins_and_ends():
    logged = rows([2.0, 0.25]) + rows([0.98], "validation", "accuracy")
    assert drawn(logged).labels == [
        "loss over the steps: train from 2.0000 to 0.2500",
        "accuracy over the steps: validation 98.00 %",
    ]


def test_a_metric_or_split_of_any_name_is_text():
    evil = "<script>alert('x')</script>\"><img src=http://example.org/x>&"
    html = run_curves([{"step": 1, "split": evil, evil: 0.5}], None)
    assert "<script" not in html
    assert "<img" not in html
    assert re.search("&lt;script&gt;", html)


def test_no_library_for_pictures_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert drawn(rows([1.0, 2.0])).line("train")


def test_a_chart_takes_a_few_milliseconds():
    logged = rows(np.random.default_rng(0).uniform(1, 2, 2000))
    seconds = []
    for _ in range(3):
        start = perf_counter()
        run_curves(logged, None)
        seconds.append(perf_counter() - start)
    assert min(seconds) < 0.1
