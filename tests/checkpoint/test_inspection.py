"""Norms and differences of checkpoints, worked by hand."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit.checkpoint import Contents, Keep, Store, compare, leaves_of, packed, read, status


def saved(folder: Path, *states: dict[str, Any]) -> list[Contents]:
    with Store(folder, Keep(latest=10)) as store:
        for step, state in enumerate(states):
            store.save(step, state)
    return [read(folder / str(step)) for step in range(len(states))]


@pytest.mark.parametrize(
    ("array", "norm", "largest"),
    [
        (jnp.array([[3.0, -4.0]]), 5.0, 4.0),
        (jnp.array([300.0, -400.0], jnp.float16), 500.0, 400.0),  # its square overflows float16
        (jnp.array([3, 4], jnp.bfloat16), 5.0, 4.0),
        (jnp.array([200, 200], jnp.uint8), math.sqrt(80000), 200.0),
        (jnp.array([True, True, False]), math.sqrt(2), 1.0),
        (jnp.array([3 + 4j]), 5.0, 5.0),
        (jnp.zeros((0, 3)), 0.0, 0.0),
        (jnp.array([1.0, jnp.inf]), math.inf, math.inf),
    ],
)
def test_norm_and_largest_number(tmp_path: Path, array: Any, norm: float, largest: float):
    (found,) = leaves_of(saved(tmp_path, {"x": array})[0])
    assert (found.path, found.shape, found.dtype) == ("x", array.shape, str(array.dtype))
    assert found.norm == pytest.approx(norm, rel=1e-12)
    assert found.largest == largest


def test_one_number_that_is_none_shows_in_the_norm(tmp_path: Path):
    (found,) = leaves_of(saved(tmp_path, {"x": jnp.array([1.0, jnp.nan])})[0])
    assert math.isnan(found.norm)
    assert math.isnan(found.largest)


@pytest.mark.parametrize(
    ("a", "b", "largest"),
    [
        ([2.0, -2.0], [2.0, -1.0], 0.5),
        ([0.0, 0.0], [0.0, 3.0], 3.0),
        ([np.inf, 1.0], [np.inf, 2.0], 1.0),
        ([np.nan, 1.0], [np.nan, 1.5], 0.5),
        ([0.0], [-0.0], 0.0),
    ],
)
def test_the_largest_difference_is_in_units_of_the_root_mean_square(
    tmp_path: Path, a: list[float], b: list[float], largest: float
):
    pair = saved(tmp_path, {"x": jnp.array(a)}, {"x": jnp.array(b)})
    (found,) = compare(pair[0], pair[1])
    assert found.largest == pytest.approx(largest)
    assert not found.equal


def test_a_number_against_none_has_no_difference(tmp_path: Path):
    first, second = saved(tmp_path, {"x": jnp.array([1.0])}, {"x": jnp.array([jnp.nan])})
    assert math.isnan(compare(first, second)[0].largest)


def test_missing_leaves_and_other_shapes_are_noted(tmp_path: Path):
    first, second = saved(
        tmp_path, {"x": jnp.ones(2), "y": jnp.ones(1)}, {"x": jnp.ones(3), "z": jnp.ones(1)}
    )
    notes = {row.path: row.note for row in compare(first, second)}
    assert notes == {
        "x": "float32[2] against float32[3]",
        "y": "only in step 0",
        "z": "only in step 1",
    }


def test_every_step_has_a_status(tmp_path: Path):
    saved(tmp_path, {"x": jnp.ones(2)}, {"x": jnp.ones(2)})
    (tmp_path / "0" / packed.NAME).write_bytes(b"")
    found = status(tmp_path)
    assert found[1] == "verified"
    assert "arrays.bin is damaged (0 bytes" in found[0]
