"""The newest step that verifies is used, damaged ones are announced, and nothing is lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pytest

from functorch_kit.checkpoint import CheckpointError, Damaged, Keep, Store, manifest, packed

STEPS = (10, 20, 30, 40)


def state(step: int) -> dict:
    return {"x": jnp.full(50, float(step))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path, Keep(latest=4)) as store:
        for step in STEPS:
            store.save(step, state(step), score=1 / step, meta={"step": step})
    return tmp_path


def flip(folder: Path) -> None:
    path = folder / packed.NAME
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def lose_the_manifest(folder: Path) -> None:
    (folder / manifest.NAME).unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [flip, lose_the_manifest, empty]


def test_without_damage_the_newest_step_is_used_and_nothing_is_said(folder: Path):
    said: list[str] = []
    found = Store(folder).restore_newest(state(0), said.append)
    assert found is not None
    step, restored, meta = found
    assert (step, meta, said) == (40, {"step": 40}, [])
    assert float(restored["x"][0]) == 40


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_steps_are_passed_over_each_with_a_line(
    folder: Path, damage: Callable[[Path], None]
):
    damage(folder / "40")
    damage(folder / "30")
    said: list[str] = []
    found = Store(folder).restore_newest(state(0), said.append)
    assert found is not None
    assert found[0] == 20
    assert float(found[1]["x"][0]) == 20
    assert [line.split(":")[0] for line in said] == [
        "step 40 is passed over",
        "step 30 is passed over",
    ]
    assert all(str(folder) in line and "\n" not in line for line in said)


def test_an_older_damaged_step_is_no_matter_to_the_newest(folder: Path):
    flip(folder / "20")
    said: list[str] = []
    assert Store(folder).newest(said.append) == 40
    assert said == []


def test_a_step_asked_for_by_number_is_refused_when_damaged(folder: Path):
    flip(folder / "40")
    with pytest.raises(Damaged, match=r"40/arrays\.bin is damaged"):
        Store(folder).restore(40, state(0))


def test_the_lines_go_to_standard_error_if_nobody_else_takes_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    flip(folder / "40")
    assert Store(folder).newest() == 30
    assert capsys.readouterr().err.startswith("step 40 is passed over: ")


def test_without_a_sound_step_there_is_an_error_and_without_a_step_there_is_none(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    for step in STEPS:
        flip(folder / str(step))
    with pytest.raises(CheckpointError, match="holds 4 checkpoints, and all of them are damaged"):
        Store(folder).newest(lambda line: None)
    assert Store(tmp_path_factory.mktemp("none")).restore_newest(state(0)) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_older_step_and_the_damaged_one_is_set_aside(
    folder: Path, damage: Callable[[Path], None]
):
    damage(folder / "40")
    before = sorted(os.listdir(folder))
    with Store(folder, Keep(latest=2, best=2)) as store:
        assert store.newest(lambda line: None) == 30
        assert sorted(os.listdir(folder)) == before, "reading changes nothing"
        assert store.best() == 30, "a damaged step is not the best one"
        store.save(40, state(41), score=1 / 40)
        store.wait()
        assert float(store.restore(40, state(0))[0]["x"][0]) == 41
    assert sorted(os.listdir(folder)) == [".lock", "30", "40", "40.damaged"]
    assert Store(folder).newest(lambda line: None) == 40


def test_a_second_damage_of_one_step_does_not_cost_the_first(folder: Path):
    for turn in range(3):
        flip(folder / "40")
        with Store(folder) as store:
            assert store.newest(lambda line: None) == 30
            store.save(40, state(50 + turn))
    assert {"40", "40.damaged", "40.damaged-2", "40.damaged-3"} < set(os.listdir(folder))


def test_a_damage_met_while_restoring_is_set_aside_by_the_next_save(folder: Path):
    flip(folder / "40")
    with Store(folder) as store:
        store.save(50, state(50))
        with pytest.raises(Damaged):
            store.restore(40, state(0))
        store.save(60, state(60))
    assert "40.damaged" in os.listdir(folder)
    assert store.latest() == 60
