"""F13: of several processes that want one run folder, one gets it and the others say who has."""

import re
from pathlib import Path

import pytest

from functorch_kit.checkpoint import Lock, Locked, Store
from functorch_kit.run import RunError, RunFolder


def race(folder: Path, launch, undisturbed, count: int) -> None:
    """Start so many at once; exactly one trains."""
    processes = [launch(folder) for _ in range(count)]
    ended = [process.communicate(timeout=300) for process in processes]
    winners = [index for index, process in enumerate(processes) if process.returncode == 0]
    assert len(winners) == 1, ended
    assert ended[winners[0]][0].strip() == undisturbed.hash
    for index, process in enumerate(processes):
        if index in winners:
            continue
        out, err = ended[index]
        assert (process.returncode, out, err.count("\n")) == (2, "", 1), err
        holder = rf"is written to by process {processes[winners[0]].pid} on \S+ since 20"
        # One that comes when the winner has ended meets a finished run instead.
        late = "holds a run|by another process while this one started"
        assert re.search(f"{holder}|{late}", err), err


def test_of_three_processes_that_race_for_a_folder_one_wins(tmp_path: Path, launch, undisturbed):
    race(tmp_path / "run", launch, undisturbed, 3)


@pytest.mark.soak
def test_fifty_races_have_one_winner_each(tmp_path: Path, launch, undisturbed, table):
    with table.row("F13", "three processes started at once on one run folder") as row:
        for index in range(50):
            race(tmp_path / f"{index}", launch, undisturbed, 3)
            row.count += 1
        row.result = (
            "one trains to the right hash; the others end with code 2 and name its process, or,"
            " where it has ended by then, its finished run"
        )


def test_a_locked_folder_is_left_as_it_is_even_by_one_that_would_overwrite_it(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.begin({"seed": 0})
    with pytest.raises(Locked):
        RunFolder(tmp_path, overwrite=True).begin({"seed": 1})
    assert "seed: 0" in (tmp_path / "config.yaml").read_text()
    run.close()
    again = RunFolder(tmp_path, overwrite=True)
    again.begin({"seed": 1})
    again.close()
    assert "seed: 1" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_was_written_to_since_it_was_opened_is_refused(tmp_path: Path, how):
    run = RunFolder(tmp_path, **how)
    with Store(tmp_path / "checkpoints") as store:
        store.save(7, {})
    with pytest.raises(RunError, match="by another process while this one started: start it again"):
        run.begin()
    run.close()
    with Lock(tmp_path) as lock:
        assert lock.held
    assert store.steps() == [7]
