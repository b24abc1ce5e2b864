"""A job is killed and resumed; one that remembers something outside its state is found out."""

import functools
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from functorch_kit.certify import VerificationError, resuming, verify_resume
from functorch_kit.certify.child import configured
from functorch_kit.errors import UserError

JOBS = Path(__file__).parent / "jobs.py"


def test_a_sound_job_is_certified_with_everything_that_was_compared(
    tmp_path: Path, script_environment, monkeypatch
):
    monkeypatch.delenv("FUNCTORCH_KIT_CACHE")
    said: list[str] = []
    found = verify_resume(
        f"{JOBS}:sound", steps=8, moments=["between"], folder=tmp_path / "runs", say=said.append
    )
    assert found.certified, found
    # Killed at the pause after step 8; what it did from there on is lost, or half of a save.
    assert found.killed == {"between": 10}
    assert found.resumed["between"] in (8, 10)
    # 16 rows of training and, a pause every 2 steps, 8 of validation.
    assert (found.steps, found.rows) == (16, 24)
    lines = (tmp_path / "runs" / "straight.trace").read_text().splitlines()
    assert len(lines) == 8 + 1
    for part in (
        "params/first/kernel",
        "model_state/norm",
        "opt_state/",
        "ema/",
        "best/",
    ):
        assert part in lines[-1]
    for name in ('"step"', '"key"', "checkpoint's data_offset", "checkpoint's best_step"):
        assert name in lines[-1]
    assert str(found).startswith("certified: killed at step 10, resumed from ")
    assert said[0] == "16 steps straight"
    assert found.to_dict()["certified"] is True


def test_a_job_whose_data_depend_on_the_process_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("FUNCTORCH_KIT_CACHE")
    job = f"{JOBS}:with_an_order_of_the_process"
    found = verify_resume(job, steps=4, moments=["published"], folder=tmp_path)
    assert not found.certified
    assert found.difference is not None
    assert found.difference.of_any_two_runs
    assert found.difference.step == 1
    assert " of the train row is " in found.difference.what
    assert found.difference.leaf in ("params/first/bias", "params/first/kernel")
    assert "two runs that nothing was done to differ as well, from step 1 on: " in str(found)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("job", "step", "what"),
    [
        ("with_a_rate_that_restarts", 9, "params/first/bias"),
        # Evaluations at 2, 4 … 12: the straight run ends at 12, the resumed one does not.
        ("with_a_patience_that_restarts", 13, "a train row is one too many"),
    ],
)
def test_state_that_lives_outside_the_state_is_named(monkeypatch, job: str, step: int, what: str):
    monkeypatch.delenv("FUNCTORCH_KIT_CACHE")
    found = verify_resume(f"{JOBS}:{job}", steps=8, moments=["published"])
    assert found.difference is not None
    assert not found.difference.of_any_two_runs
    # The row of a step tells of the parameters before it.
    assert found.difference.step in (step, step + 1)
    assert what in str(found)
    assert f"killed at step 8, resumed from 8, the run differs from step {found.difference.step}"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("that_stops_early", "ended before it could be killed after step 4: it stops early"),
        ("that_is_refused", "the run 'straight' ended with code 2: optimizer is a int: give one"),
        ("that_is_nowhere", "there is no function 'that_is_nowhere' in"),
    ],
)
def test_a_job_that_cannot_be_verified_is_refused_in_one_line(job: str, message: str):
    with pytest.raises(VerificationError) as caught:
        verify_resume(f"{JOBS}:{job}", steps=4)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_no_other_process_can_import_or_read_is_refused_at_once(tmp_path: Path):
    def nested() -> dict[str, Any]:
        return {}

    for job in (nested, functools.partial(configured, {})):
        with pytest.raises(VerificationError, match="give a function at the top of a module"):
            verify_resume(job)
    with pytest.raises(VerificationError, match="steps is 1: give a number from 2 up"):
        verify_resume(configured, steps=1)
    with pytest.raises(VerificationError, match="moment 'never' is not one of published, between"):
        verify_resume(configured, moments=["never"])
    with pytest.raises(VerificationError, match="arguments are not JSON: Object of type set"):
        verify_resume(configured, arguments={"values": {1}})
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="is not empty: choose another"):
        verify_resume(configured, folder=tmp_path)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import jobs
from functorch_kit.certify import verify_resume


def job():
    return jobs.sound()


if __name__ == "__main__":
    say = lambda line: print(line, flush=True)
    print(verify_resume(job, steps=4, moments=["published"], say=say))
"""


def script(tmp_path: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT.format(folder=str(JOBS.parent)))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**environment, "PYTHONPATH": str(JOBS.parents[2]), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.soak
def test_a_job_of_the_script_itself_is_verified(tmp_path: Path, script_environment):
    out, _ = script(tmp_path, script_environment).communicate(timeout=300)
    assert out.splitlines()[-1].startswith("certified: killed at step 4, resumed from 4, a run end")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.soak
def test_a_verification_that_is_stopped_leaves_no_process_and_no_folder(
    tmp_path: Path, script_environment
):
    process = script(tmp_path, script_environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "8 steps straight\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 1  # Python's own answer to an exception that nobody caught
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    orders = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in order for order in orders)


def test_on_a_gpu_it_says_which_flag_makes_it_hold(monkeypatch):
    gpu = {"platform": "gpu", "kind": "some GPU"}
    monkeypatch.setenv("XLA_FLAGS", "")
    assert resuming._note({"platform": "cpu"}) is None
    told = resuming._note(gpu)
    assert told is not None
    assert "set XLA_FLAGS=--xla_gpu_deterministic_ops=true, which costs speed" in told
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    told = resuming._note(gpu)
    assert told is not None
    assert "is set: exact" in told
