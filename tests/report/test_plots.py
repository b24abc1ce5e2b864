"""Pictures in files of their own: the choice of axis, the same picture every time."""

import sys
import xml.etree.ElementTree as ET

import pytest

from functorch_kit.errors import UserError
from functorch_kit.report import PlotsError, bars

pytest.importorskip("matplotlib")


def _texts(svg):
    return {element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_the_same_numbers_give_the_same_bytes():
    assert bars(["a", "b"], [1.0, 2.0]) == bars(["a", "b"], [1.0, 2.0])


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
    bars(["a"], [1.0], png=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_an_error_for_users_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"functorch_kit\[experiments\]") as caught:
        bars(["a"], [1.0])
    assert isinstance(caught.value, PlotsError | ImportError)


def test_settings_of_the_user_are_left_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    bars(["a"], [1.0])
    assert dict(matplotlib.rcParams) == before
