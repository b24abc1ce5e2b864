"""The room as a whole: cheap to enter, small numbers right."""

import subprocess
import sys
import zlib

import numpy as np
import pytest

from functorch_kit.report.images import png, thumbnail
from functorch_kit.report.quantities import clock, count, duration, metric, size

HEAVY = ("rich", "matplotlib", "tensorboardX", "flax", "orbax", "grain", "sklearn", "hydra")


def _loaded_after(code, environment):
    check = f"{code}; import sys; print(*(n for n in {HEAVY!r} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_room_loads_no_third_party_library(script_environment):
    assert _loaded_after("import functorch_kit.report", script_environment) == []


def test_a_quiet_or_piped_console_loads_none_either(script_environment):
    code = (
        "from functorch_kit.report import RunConsole; "
        "import io; c = RunConsole('t', 10, stream=io.StringIO()); "
        "c.program({'name': 'p'}); c.update(10, {'loss': 1.0}); c.close()"
    )
    assert _loaded_after(code, script_environment) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (1.0, "1.00 s"), (0.9996, "1.00 s"),
     (9.996, "10.0 s"), (1e-3, "1.00 ms"), (2.5e-8, "25.0 ns"), (3600, "1 h 00 min"),
     (-2, "-2.00 s"), (None, "-"), (float("nan"), "-")],
)  # fmt: skip
def test_durations(value, text):
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9,999"), (10_000, "10.0 k"), (999_499, "999 k"), (999_500, "1.00 M"),
     (1.5e12, "1.50 T"), (float("inf"), "-")],
)  # fmt: skip
def test_counts(value, text):
    assert count(value) == text


def test_sizes_clocks_and_metrics():
    assert [size(value) for value in (0, 999, 1000, 1.5e9)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "1.50 GB",
    ]
    assert [clock(value) for value in (0.0, 59.1, 3661, None)] == [
        "0:00",
        "1:00",
        "1:01:01",
        "-:--",
    ]
    assert metric("top_5", 1) == "100.00 %"
    assert [metric("loss", value) for value in (0, 1e-5, 12.345, 12345.6)] == [
        "0", "1e-05", "12.35", "1.235e+04",
    ]  # fmt: skip


@pytest.mark.parametrize(("shape", "channels"), [((3, 5), 1), ((3, 5, 1), 1), ((3, 5, 3), 3),
                                                 ((3, 5, 4), 4)])  # fmt: skip
def test_a_png_holds_the_pixels_that_it_was_given(shape, channels):
    image = np.random.default_rng(0).integers(0, 256, shape) / 255
    file = png(image)
    start = file.index(b"IDAT")
    length = int.from_bytes(file[start - 4 : start], "big")
    lines = np.frombuffer(zlib.decompress(file[start + 4 : start + 4 + length]), np.uint8)
    lines = lines.reshape(3, 1 + 5 * channels)
    assert not lines[:, 0].any()  # no filter
    assert np.array_equal(lines[:, 1:], np.rint(image * 255).reshape(3, 5 * channels))
    check = int.from_bytes(file[start + 4 + length : start + 8 + length], "big")
    assert check == zlib.crc32(file[start : start + 4 + length])


def test_a_png_cuts_off_what_is_beyond_black_and_white():
    wild = png(np.array([[-1.0, 2.0, np.nan]]))
    assert wild == png(np.array([[0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (0, 4), (2, 2, 3, 1)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="an image has shape"):
        png(np.zeros(shape))


def test_a_thumbnail_is_no_larger_than_its_side():
    assert thumbnail(np.zeros((65, 64))).shape == (33, 32)
    assert thumbnail(np.zeros((64, 64))).shape == (64, 64)
    assert max(thumbnail(np.zeros((1000, 3, 3))).shape) <= 64
