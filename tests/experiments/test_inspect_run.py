"""Looking into the checkpoints of a run from the command line."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from functorch_kit.checkpoint import Keep, Store, packed


def state(kernel: float, **more: Any) -> dict[str, Any]:
    return {"params": {"kernel": jnp.array([kernel, -kernel]), "bias": jnp.zeros(3)}, **more}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path) -> Path:
    """Two runs in the folder that the script is started in."""
    with Store(tmp_path / "a" / "checkpoints", Keep(latest=3)) as store:
        store.save(10, state(3.0), meta={"seed": 1})
        store.save(20, state(6.0), meta={"seed": 1})
    with Store(tmp_path / "b" / "checkpoints") as store:
        store.save(20, state(6.0, count=jnp.int32(2)))
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    return tmp_path


def test_the_newest_step_is_shown_with_its_leaves_versions_and_meta(here):
    ended = here("inspect_run.py", "run=a")
    assert ended.code == 0, ended.err
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines[:2] == ["step 10: verified", "step 20: verified"]
    assert "params/kernel float32[2] norm 8.48528 max 6" in lines
    assert "params/bias float32[3] norm 0 max 0" in lines
    assert '"jax": "' in ended.out
    assert 'meta: {"seed": 1}' in lines
    assert ended.last_line == "step 20: 2 leaves"


def test_a_step_may_be_chosen(here):
    assert "norm 4.24264" in here("inspect_run.py", "run=a", "step=10").out


def test_a_damaged_step_is_said_and_passed_over(here, runs: Path):
    path = runs / "a" / "checkpoints" / "20" / packed.NAME
    path.write_bytes(path.read_bytes()[:-1])
    ended = here("inspect_run.py", "run=a")
    assert ended.err.startswith("step 20 is passed over: ")
    assert "step 20: " in ended.out
    assert "arrays.bin is damaged" in ended.out
    assert ended.last_line == "step 10: 2 leaves"
    assert "arrays.bin is damaged" in here("inspect_run.py", "run=a", "step=20").complaint


def test_two_steps_are_compared_in_units_of_each_leafs_scale(here):
    ended = here("inspect_run.py", "run=a", "step=10", "against=20")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines == [
        "params/bias equal",
        "params/kernel 1 of its scale",
        "step 10 against 20: 1 of 2 leaves differ",
    ]


def test_two_runs_are_compared_and_what_only_one_has_is_said(here):
    ended = here("inspect_run.py", "run=a", "against=b")
    assert "count" in ended.out
    assert "only in step 20" in ended.out
    assert ended.last_line == "step 20 against 20: 1 of 3 leaves differ"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run=empty"], "has no checkpoint: train it first"),
        (["run=nowhere"], "has no checkpoint"),
        (["run=a", "step=15"], "has no step 15: give one of [10, 20]"),
        (["run=a", "against=15"], "has no step 15"),
        (["run=a", "against=nowhere"], "has no checkpoint"),
        ([], "run"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(here, arguments: list[str], words: str):
    assert words in here("inspect_run.py", *arguments).complaint
