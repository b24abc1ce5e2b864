"""Where values lie on the axes of a sweep."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.report.scales import metric_scale, scale_of


def places(values, **options):
    scale = scale_of(values, **options)
    return [round(scale.at(value), 6) for value in values]


def test_numbers_that_span_decades_lie_by_their_logarithm():
    assert places([1e-4, 1e-3, 1e-2, 1e-1]) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-6)
    assert places([3e-4, 3e-3]) == [0.0, 1.0]


def test_numbers_that_lie_evenly_stay_linear_whatever_their_ratio():
    assert places([0.0, 1.0, 4.0]) == [0.0, 0.25, 1.0]
    assert places([16, 32, 64]) == pytest.approx([0, 1 / 3, 1], abs=1e-6)
    assert not scale_of([0.001 + n / 100 for n in range(60)]).is_log
    assert places([-1.0, 1.0, 1000.0])[1] == pytest.approx(2 / 1001, abs=1e-6)


def test_a_zero_among_decades_lies_apart_below_them():
    assert places([0.0, 1e-4, 1e-2]) == [0.0, 0.13, 1.0]
    assert scale_of([0, 1e-4, 1e-2]).ticks[0] == (0.0, "0")


def test_what_is_no_number_lies_apart_below_the_numbers():
    assert places([None, 0.5, 1.0, "auto", math.inf]) == [
        pytest.approx(0.26), 0.39, 1.0, pytest.approx(0.13), 0.0,
    ]  # fmt: skip


def test_categories_are_evenly_apart_in_the_order_of_the_numbers_in_them():
    assert places([[256, 128], [64], [128]]) == [1.0, 0.0, 0.5]
    assert places(["relu", True, None]) == [0.5, 1.0, 0.0]
    assert places([7]) == places(["only"]) == [0.5]


def test_seeds_are_evenly_apart_whatever_they_are():
    assert places([0, 1, 123456], evenly=True) == [0.0, 0.5, 1.0]


def test_few_numbers_are_all_labelled_and_many_by_round_ones():
    assert [text for _, text in scale_of([1e-4, 3e-4, 1e-3]).ticks] == ["0.0001", "0.0003", "0.001"]
    many = scale_of([0.013 + n / 100 for n in range(50)])
    assert [text for _, text in many.ticks] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    decades = scale_of([10 ** (-5.2 + n / 10) for n in range(50)])
    assert [text for _, text in decades.ticks] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]


def test_the_labels_of_a_metric_tell_one_from_the_next():
    scale = metric_scale("accuracy", [0.98611, 0.98619], "max")
    labels = [text for _, text in scale.ticks]
    assert labels == ["98.612 %", "98.614 %", "98.616 %", "98.618 %"]
    assert [text for _, text in metric_scale("loss", [0.01, 0.05, 3.0], "min").ticks] == [
        "1", "0.1", "0.01",
    ]  # fmt: skip


def test_many_categories_are_labelled_in_part():
    assert len(scale_of([f"name {n}" for n in range(100)]).ticks) <= 14


values = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)), min_size=1
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_values_lie_on_the_axis_and_equal_numbers_in_one_place(values):
    scale = scale_of(values)
    for value in values:
        assert 0.0 <= scale.at(value) <= 1.0
    assert all(0.0 <= place <= 1.0 for place, _ in scale.ticks)
    numbers = sorted(float(v) for v in values if type(v) is float and math.isfinite(v))
    found = [scale.at(number) for number in numbers]
    assert found == sorted(found)
