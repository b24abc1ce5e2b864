"""The folder of a run: what is left in it, and whose files are never touched."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import optax
import pytest

import functorch_kit as fk
from functorch_kit.errors import UserError

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")


def _fit(model: fk.nn.Model | None = None, **changes: Any) -> fk.FitResult:
    model = model or fk.models.mlp(fk.models.MLPConfig(hidden=(8,)))
    data = fk.data.digits(batch_size=32)
    options = {"optimizer": optax.adam(1e-3), "data": data, "quiet": True, "steps": 2}
    settings: dict[str, Any] = options | changes
    return fk.fit(model, fk.train.classification(model), **settings)


def test_a_run_leaves_its_records_behind(tmp_path: Path):
    _fit(run_dir=tmp_path, config={"model": {"name": "mlp"}, "seed": 1})
    assert {path.name for path in tmp_path.iterdir()} >= {
        "checkpoints",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "program.json",
        "report.html",
        "summary.json",
        "tensorboard",
    }
    assert fk.run.read_config(tmp_path) == {"model": {"name": "mlp"}, "seed": 1}
    program = json.loads((tmp_path / "program.json").read_text())
    assert program["programs"]["train_step"]["flops"] > 0
    assert not program["programs"]["train_step"]["not_donated"]


def test_a_folder_that_holds_a_run_is_refused_unless_told_otherwise(tmp_path: Path):
    _fit(steps=2, run_dir=tmp_path)
    with pytest.raises(UserError, match=r"holds a run: resume it, set overwrite=true"):
        _fit(steps=2, run_dir=tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    again = _fit(steps=3, run_dir=tmp_path, overwrite=True)
    assert again.summary["steps"] == 3
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "environment.json").write_text("{}")  # a run's folder, as far as can be seen
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\): choose another"):
        _fit(steps=2, run_dir=tmp_path, config={"seed": 0})


def test_a_run_that_cannot_be_removed_is_not_said_to_want_overwrite(tmp_path: Path):
    elsewhere = tmp_path / "large_disk"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(elsewhere)
    _fit(steps=2, run_dir=tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot be removed \(Cannot call rmtree on a symbolic"):
        _fit(steps=2, run_dir=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_run_that_cannot_be_compiled_costs_nobody_the_run_before_it(tmp_path: Path):
    _fit(steps=2, run_dir=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="embedding"):
        _fit(_broken(), steps=2, run_dir=tmp_path, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def _broken() -> fk.nn.Model:
    def apply(*_: Any, **__: Any) -> Any:
        raise ValueError("no embedding for it")

    return fk.nn.Model(lambda key, x_spec: ({}, ()), apply)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_files_of_somebody_else_is_left_alone(tmp_path: Path, overwrite: bool):
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(UserError, match=r"holds config\.yaml, and no run wrote it"):
        _fit(steps=2, run_dir=tmp_path, overwrite=overwrite, config={"seed": 0})
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"


def test_a_second_signal_stops_at_once_and_the_folder_stays_valid(tmp_path: Path):
    """In the middle of an evaluation, which a first signal lets come to its end."""

    def stop(rows: list[Any]) -> bool:
        if len(rows) == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
        return False

    with pytest.raises(fk.run.Interrupted, match="stopped by SIGTERM at once") as caught:
        _fit(steps=40, eval_every=10, stop=stop, run_dir=tmp_path)
    assert (caught.value.signal, caught.value.step) == (signal.SIGTERM, None)
    assert fk.checkpoint.Store(tmp_path / "checkpoints").newest() == 20
    assert _fit(steps=40, run_dir=tmp_path, resume=True).summary["status"] == "finished"
