"""``sweep.run``: the split, run folders, what is done is not done again."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from functorch_kit import checkpoint, config, program, sweep
from functorch_kit.errors import UserError
from functorch_kit.run import Interrupted

pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_once")


def texts(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/metrics.jsonl")}


def test_the_split_is_told_before_anything_runs(job, tmp_path: Path):
    told: list[tuple[str, bool]] = []

    def say(line: str) -> None:
        told.append((line, any(tmp_path.iterdir())))

    jobs = [job(seed=seed, learning_rate=rate) for seed in range(2) for rate in (0.1, 0.2)]
    sweep.run([*jobs, job(hidden=(4,))], tmp_path, say=say)
    assert told[0] == ("5 jobs: 0 done before, 5 to run; compiles: 2", False)
    first, second = told[1], told[2]
    assert first[0].startswith("program 1: 1 × 4 lanes side by side, about ")
    assert first[0].endswith("over optimizer.learning_rate, seed; model.hidden=[8]")
    assert second[0].startswith("program 2: 1 one by one (there is one)")
    assert not first[1]
    assert not second[1]


def test_every_job_is_an_ordinary_run(job, tmp_path: Path):
    result = sweep.run([job(seed=seed) for seed in range(2)], tmp_path, say=None)
    for number, each in enumerate(result.jobs):
        folder = tmp_path / str(number)
        assert each.folder == folder
        names = {path.name for path in folder.iterdir()}
        assert {
            "config.yaml",
            "metrics.jsonl",
            "summary.json",
            "report.html",
            "checkpoints",
        } < names
        assert config.load_run(folder).seed == number
        assert checkpoint.Store(folder / "checkpoints").newest() == 12
    run = config.build(config.load_run(tmp_path / "1"))
    gone_on = run.fit(resume=True, steps=16, quiet=True)
    assert gone_on.summary["steps"] == 16


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.soak)])
def test_what_is_done_is_not_done_again(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    jobs = [job(seed=seed, steps=4) for seed in range(count)]
    sweep.run(jobs, tmp_path, say=None)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was compiled")

    monkeypatch.setattr(program, "compile", refuse)
    again = sweep.run(jobs, tmp_path, say=None)
    assert [each.status for each in again.jobs] == ["finished"] * count
    assert again.compiles == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before


def test_a_job_is_known_by_what_it_computes_and_not_by_its_place(job, tmp_path: Path):
    sweep.run([job(seed=0), job(seed=1)], tmp_path, say=None)
    told: list[str] = []
    result = sweep.run([job(seed=2), job(seed=1), job(seed=0)], tmp_path, say=told.append)
    assert told[0] == "3 jobs: 2 done before, 1 to run; compiles: 1"
    assert [each.folder.name for each in result.jobs if each.folder] == ["2", "1", "0"]
    assert [config.load_run(tmp_path / str(n)).seed for n in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("mode", ["lanes", "one_by_one"])
def test_an_interrupted_sweep_goes_on_to_the_same_table(job, tmp_path: Path, mode: str):
    jobs = [job(seed=seed, dropout=0.3, steps=24) for seed in range(3)]
    sweep.run(jobs, tmp_path / "whole", mode=mode, say=None)
    seen: list[int] = []

    def told_to_stop(self: Any, step: int, *arguments: Any, **options: Any) -> None:
        pause(self, step, *arguments, **options)
        seen.append(step)
        if len(seen) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    from functorch_kit.lane import Lane

    pause = Lane.pause
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lane, "pause", told_to_stop)
        with pytest.raises(Interrupted, match="SIGTERM"):
            sweep.run(jobs, tmp_path / "broken", mode=mode, say=None)
    statuses = [each["status"] for each in read(tmp_path / "broken")["jobs"]]
    assert "interrupted" in statuses
    sweep.run(jobs, tmp_path / "broken", mode=mode, say=None)
    assert texts(tmp_path / "broken") == texts(tmp_path / "whole")
    assert table(tmp_path / "broken") == table(tmp_path / "whole")


def test_lanes_that_go_on_from_different_steps_wait_for_each_other(job, tmp_path: Path):
    jobs = [job(seed=seed, dropout=0.3) for seed in range(3)]
    sweep.run(jobs, tmp_path / "whole", say=None)
    sweep.run(jobs, tmp_path / "broken", say=None)
    # As after a kill: one has saved step 8 and no more, one nothing at all.
    for number, first in {0: 8, 1: 0}.items():
        folder = tmp_path / "broken" / str(number)
        (folder / "summary.json").unlink()
        for path in (folder / "checkpoints").iterdir():
            if path.name.isdecimal() and int(path.name) > first:
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()
    again = sweep.run(jobs, tmp_path / "broken", say=None)
    assert [len(group.jobs) for group in again.groups] == [2]
    assert texts(tmp_path / "broken") == texts(tmp_path / "whole")
    assert table(tmp_path / "broken") == table(tmp_path / "whole")


def test_another_program_is_compiled_where_fewer_lanes_are_left_and_that_is_counted(x64, job):
    jobs = [job(learning_rate=0.01, seed=seed, precision="float64", steps=40) for seed in range(8)]
    for each in jobs[2:]:
        each.optimizer.learning_rate = 1e-30
    for each in jobs:
        each.train.patience = 2
    plain = sweep.run(jobs, devices=1, say=None)
    compact = sweep.run(jobs, devices=1, compact=True, say=None)
    assert (plain.compiles, compact.compiles) == (1, 2)
    for one, other in zip(plain.jobs, compact.jobs, strict=True):
        assert one.summary["steps"] == other.summary["steps"]
        assert one.summary["test_loss"] == pytest.approx(other.summary["test_loss"], rel=1e-9)


def test_a_program_that_does_not_fit_is_compiled_for_fewer_lanes(job, monkeypatch):
    from functorch_kit.sweep.lanes import LanePrograms

    monkeypatch.setattr(LanePrograms, "memory", property(lambda self: self.count * 1000))
    jobs = [job(seed=seed) for seed in range(6)]
    told: list[str] = []
    # The rough figure before compiling says that all of them fit.
    monkeypatch.setattr("functorch_kit.sweep.plan._lane_bytes", lambda arguments: 1)
    result = sweep.run(jobs, memory=3000, devices=1, say=told.append)
    assert "6 lanes do not fit in memory: compiling for 3" in told
    assert result.compiles == 2
    assert {each.status for each in result.jobs} == {"finished"}


def test_halving_ends_most_jobs_at_each_rung(job):
    halving = sweep.SuccessiveHalving(4, factor=2)
    jobs = [job(learning_rate=rate, steps=16) for rate in (1e-6, 1e-1, 1e-5, 1e-4)]
    result = sweep.run(jobs, halving=halving, devices=1, say=None)
    steps = [each.summary["steps"] for each in result.jobs]
    assert steps[1] == 16
    assert sorted(steps) == [4, 4, 8, 16]
    by_steps = {each.summary["steps"]: each.status for each in result.jobs}
    assert by_steps == {4: "pruned", 8: "pruned", 16: "finished"}


@pytest.mark.parametrize("mode", ["lanes", "one_by_one"])
def test_a_pruned_job_is_told_from_one_that_stopped_and_is_not_run_again(
    job, tmp_path: Path, mode: str
):
    jobs = [job(learning_rate=rate, steps=16) for rate in (1e-1, 1e-6)]
    jobs.append(job(learning_rate=1e-30, steps=16, patience=1))
    halving: dict[str, Any] = {"halving": sweep.SuccessiveHalving(12, factor=3)}
    halving |= {"mode": mode, "devices": 1}
    sweep.run(jobs, tmp_path, say=None, **halving)
    statuses = [each["status"] for each in read(tmp_path)["jobs"]]
    assert statuses == ["finished", "pruned", "stopped early"]
    assert [line.split(",")[2] for line in (tmp_path / "sweep.csv").read_text().splitlines()] == [
        "status", *statuses,
    ]  # fmt: skip
    page = (tmp_path / "1" / "report.html").read_text()
    assert '<p class="status stopped">pruned after 12 steps' in page
    told: list[str] = []
    again = sweep.run(jobs, tmp_path, say=told.append, **halving)
    assert told[0] == "3 jobs: 3 done before, 0 to run; compiles: 0"
    assert [each.status for each in again.jobs] == statuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "threads"}, "mode 'threads' is not one of auto, lanes, one_by_one"),
        ({"devices": 9}, "devices is 9: give a number from 1 to 4"),
    ],
)
def test_wrong_orders_are_refused_in_one_line(job, arguments, message):
    with pytest.raises(UserError, match=message):
        sweep.run([job()], say=None, **arguments)


def test_a_sweep_of_nothing_is_refused():
    with pytest.raises(UserError, match="a sweep of no jobs"):
        sweep.run([])


def test_steps_that_fill_a_cpu_by_themselves_run_one_by_one_and_it_says_why(job):
    told: list[str] = []
    jobs = [job(model=config.CNN(), batch_size=64, seed=seed, steps=1) for seed in range(2)]
    result = sweep.run(jobs, say=told.append)
    assert result.compiles == 1
    assert "2 one by one (a step of " in told[1]
    assert "fills a CPU by itself" in told[1]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def table(folder: Path) -> list[Any]:
    jobs = read(folder)["jobs"]
    for each in jobs:
        each["summary"].pop("seconds")
    return jobs
