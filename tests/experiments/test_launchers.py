"""The same command line with any launcher, and sweepers that ask in batches."""

import json
import math
import sys
from pathlib import Path

import pytest

SPIRALS = ["experiment=spirals", "train.log_every=5", "train.eval_every=10", "train.steps=20"]
HELD_OUT = ["data.validation=0.2", "train.batch_size=80"]

# Asks for two values, sees what they bring, and asks for two around the better one.
ASK_TELL = """
import json
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class AskTell(Sweeper):
    def __init__(self, center):
        self.center = center

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        told, center = {}, self.center
        for batch, width in enumerate((4.0, 2.0)):
            rates = [center / width, center * width]
            words = [[*arguments, f"optimizer.learning_rate={rate}"] for rate in rates]
            returned = self.launcher.launch(words, initial_job_idx=2 * batch)
            told |= {rate: each.return_value for rate, each in zip(rates, returned)}
            center = min(told, key=lambda rate: (told[rate] != told[rate], -told[rate]))
        Path("told.json").write_text(json.dumps(list(told.items())))


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="ask_tell",
    node={"_target_": "hydra_plugins.ask_tell.AskTell", "center": 0.5},
)
"""


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere" / "hydra_plugins"
    folder.mkdir(parents=True)
    (folder / "ask_tell.py").write_text(ASK_TELL)
    return folder.parent


@pytest.mark.parametrize("launcher", ["lanes", "basic"])
def test_a_sweeper_that_asks_in_batches_is_told_what_its_jobs_are_judged_by(
    script, tmp_path: Path, plugins: Path, launcher: str
):
    words = [*SPIRALS, *HELD_OUT, "hydra/sweeper=ask_tell", f"hydra/launcher={launcher}"]
    ended = script("train.py", "-m", *words, "run_dir=s", "quiet=true", path=plugins)
    assert ended.code == 0, ended.err
    told = json.loads((tmp_path / "told.json").read_text())
    found = [summary(tmp_path / "s" / number)["validation_accuracy"] for number in "0123"]
    assert [value for _, value in told] == found
    better = max(told[:2], key=lambda each: each[1])[0]
    assert [rate for rate, _ in told[2:]] == pytest.approx([better / 2, better * 2])
    if launcher == "lanes":
        table = json.loads((tmp_path / "s" / "sweep.json").read_text())
        assert [job["number"] for job in table["jobs"]] == [0, 1, 2, 3]


def test_a_job_that_diverges_has_no_value_and_the_basic_launcher_goes_on(
    script, tmp_path: Path, plugins: Path
):
    words = [*SPIRALS, *HELD_OUT, "hydra/sweeper=ask_tell", "train.nonfinite=raise"]
    huge = ["hydra.sweeper.center=2.5e5", 'optimizer.learning_rates=["**=1e6"]', "seed=0"]
    ended = script("train.py", "-m", *words, *huge, "run_dir=s", "quiet=true", path=plugins)
    assert ended.code == 3, ended
    told = json.loads((tmp_path / "told.json").read_text())
    statuses = [summary(tmp_path / "s" / number)["status"] for number in "0123"]
    assert [math.isnan(value) for _, value in told] == [each == "diverged" for each in statuses]
    lost = [str(number) for number, status in enumerate(statuses) if status == "diverged"]
    *jobs, last = ended.err.splitlines()
    assert [line.split(": step ")[0] for line in jobs] == [f"error: job {n}" for n in lost]
    noun = "job" if len(lost) == 1 else "jobs"
    assert last.startswith(f"error: training failed in {noun} {', '.join(lost)}: replay.py looks")


@pytest.mark.parametrize(
    ("package", "launcher"),
    [
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
    ],
)
def test_launchers_that_start_processes_take_the_same_command_line(
    script, tmp_path: Path, package: str, launcher: list[str]
):
    if not any((Path(each) / "hydra_plugins" / package).is_dir() for each in sys.path):
        pytest.skip(f"{package} is not installed")
    jobs = ["seed=0,1", *SPIRALS, *HELD_OUT, "quiet=true"]
    ended = script("train.py", "-m", *jobs, *launcher, "run_dir=there")
    assert ended.code == 0, ended.err
    here = script("train.py", "-m", *jobs, "run_dir=here")
    assert here.code == 0, here.err
    for number in "01":
        logs = [tmp_path / name / number / "metrics.jsonl" for name in ("there", "here")]
        assert logs[0].read_bytes() == logs[1].read_bytes()
    wrong = script("train.py", "-m", "seed=0,1", "train.accumulate=3", *launcher, "run_dir=wrong")
    assert wrong.code == 2, wrong
    assert "error: train.accumulate is 3: it must divide" in wrong.err


def test_tasks_of_one_job_are_one_run(script, tmp_path: Path):
    package = "hydra_submitit_launcher"
    if not any((Path(each) / "hydra_plugins" / package).is_dir() for each in sys.path):
        pytest.skip(f"{package} is not installed")
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    words = [*SPIRALS, *HELD_OUT, "mesh.data=-1", "run_dir=there", "quiet=true", "seed=0"]
    ended = script("train.py", "-m", *words, *launcher)
    assert ended.code == 0, ended.err
    program = json.loads((tmp_path / "there" / "0" / "program.json").read_text())
    assert program["layout"]["devices"] == 2
    assert summary(tmp_path / "there" / "0")["status"] == "finished"


def test_the_settings_of_the_launcher_are_listed_where_it_is_taken(here):
    assert "hydra.launcher.devices=null" in here("train.py", "--help").out
    assert "hydra.launcher" not in here("compare.py", "--help").out
