"""What a run takes out of records is taken out of raw ones as well, to the last digits."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import DataError, Inputs
from tests.data.test_readers import write_cifar


def test_a_column_of_years_loses_nothing_to_its_size(maybe_jit):
    """Float64 is the judge; the mean in float32 alone would be off by 0.0001 of a year."""
    random = np.random.default_rng(0)
    x = random.integers(1950, 2030, (50, 1)).astype(np.float32)
    mean, deviation = 1987.123456789, 0.75
    inputs = Inputs("table", (1,), "float32", (mean,), (deviation,), ("year",))
    expected = (x.astype(np.float64) - mean) / deviation
    found = maybe_jit(inputs.prepared)(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_bytes_of_images_become_what_the_pipeline_makes_of_them(tmp_path: Path):
    x, _ = write_cifar(tmp_path)
    for normalize in (True, False):
        parts = data.cifar(tmp_path, batch_size=2, normalize=normalize)
        assert parts.inputs.spec == jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
        found = parts.inputs.prepared(jnp.asarray(x[14:]))
        np.testing.assert_allclose(found, parts.test(0)["x"][:7], rtol=1e-6, atol=1e-6)


def test_arrays_of_ones_own_are_taken_as_they_are():
    parts = data.arrays(np.ones((20, 3), np.float32), np.arange(20) % 2, batch_size=4)
    assert parts.inputs is None
    plain = Inputs("array", (3,), "float32")
    x = jnp.ones((2, 3))
    assert plain.prepared(x) is x
    assert Inputs.from_dict(plain.to_dict()) == plain


def test_a_file_is_not_what_its_ending_says_but_one_of_a_closed_list(tmp_path: Path):
    """Pillow would start another program for PostScript, whatever the file is called."""
    pytest.importorskip("PIL")
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(DataError, match=r"cannot be decoded \(cannot identify image file\)"):
        data.decode_image(path, (2, 2), 3)
