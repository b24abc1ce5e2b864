"""The best job of a sweep from the command line, and what another command makes of the answer."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from functorch_kit.config import MLP, OPTIMIZERS, Config, Train, from_dict, to_dict
from functorch_kit.config.runs import saved
from functorch_kit.config.schedules import Cosine

ROOT = Path(__file__).parents[2]


def job(number: int, value: float | None, status: str = "finished", **more: Any) -> dict[str, Any]:
    summary = {} if value is None else {"validation_accuracy": value, "validation_loss": value}
    summary |= {"test_accuracy": 1.0 - (value or 0.0), "seconds": 1.5 + number, "reward": 1.0}
    settings = {"model.hidden": [8 * number + 8], "optimizer.learning_rate": 0.001, "seed": number}
    fields = {"number": number, "folder": str(number), "settings": settings, "status": status}
    return {**fields, "summary": summary, **more}


def write(folder: Path, *jobs: dict[str, Any], metric: str = "accuracy", mode: str = "max") -> None:
    folder.mkdir(exist_ok=True)
    fields = {"metric": metric, "mode": mode, "seconds": 1.0, "compiles": 1, "jobs": list(jobs)}
    (folder / "sweep.json").write_text(json.dumps(fields), encoding="utf-8")


@pytest.fixture(autouse=True)
def sweep(tmp_path: Path) -> Path:
    """A sweep ``s`` in the folder that the script is started in."""
    states = [(0.5, "finished"), (0.75, "finished"), (0.9, "diverged"), (None, "waiting")]
    write(tmp_path / "s", *(job(n, *state) for n, state in enumerate(states)))
    return tmp_path / "s"


def test_the_overrides_of_the_best_are_one_line(here):
    ended = here("best.py", "sweep=s")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "model.hidden=[16] optimizer.learning_rate=0.001 seed=1\n"


def test_another_metric_and_another_way_may_be_chosen(here):
    def seed(*arguments: str) -> str:
        return here("best.py", "sweep=s", *arguments).last_line.rpartition("=")[2]

    assert seed("metric=accuracy") == "1"
    assert seed("metric=loss") == "0"  # by its name: less is better
    assert seed("metric=test_accuracy") == "0"
    assert seed("mode=min") == "0"
    assert seed("metric=seconds", "mode=min") == "0"
    assert seed("metric=seconds", "mode=max") == "1"


def test_the_metric_of_the_sweep_is_better_the_way_the_sweep_says(here, sweep: Path):
    write(sweep, *(job(n, 0.5) for n in range(2)), metric="reward", mode="max")
    fields = json.loads((sweep / "sweep.json").read_text())
    for number, each in enumerate(fields["jobs"]):
        each["summary"]["reward"] = float(number)
    (sweep / "sweep.json").write_text(json.dumps(fields))
    for words in ([], ["metric=reward"], ["mode=max"], ["metric=reward", "mode=max"]):
        assert here("best.py", "sweep=s", *words).last_line.endswith("seed=1")
    assert here("best.py", "sweep=s", "metric=reward", "mode=min").last_line.endswith("seed=0")


@pytest.mark.parametrize(("folder", "place"), [("b", "b"), (None, "1")])
def test_a_job_is_looked_for_in_its_own_folder(here, sweep: Path, folder: str | None, place: str):
    write(sweep, job(0, 0.5), job(1, 0.75, folder=folder))
    (sweep / place).mkdir()
    text = yaml.safe_dump(saved(Config(seed=9)))
    (sweep / place / "config.yaml").write_text(text, encoding="utf-8")
    assert here("best.py", "sweep=s").out == "seed=9\n"
    write(sweep, job(0, None), job(1, None, folder=folder))
    row = {"step": 3, "split": "train", "loss": 0.5}
    (sweep / place / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert here("best.py", "sweep=s").out == "seed=9\n"
    assert here("best.py", "sweep=s", "metric=loss").out == "seed=9\n"


def test_a_job_whose_settings_cannot_be_read_is_told_by_what_sets_it_apart(here, sweep: Path):
    (sweep / "1").mkdir()
    (sweep / "1" / "config.yaml").write_text("{", encoding="utf-8")
    assert here("best.py", "sweep=s").last_line.endswith("seed=1")


@pytest.mark.parametrize(
    "orders", [{"run_dir": "x", "quiet": True, "overwrite": True}, {"resume": "y"}]
)
def test_orders_of_the_moment_are_no_settings_of_another_run(here, sweep: Path, orders: dict):
    (sweep / "1").mkdir()
    settings = {**to_dict(Config(seed=3)), **orders}
    (sweep / "1" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert here("best.py", "sweep=s").out == "seed=3\n"


def test_without_a_word_of_it_the_sweep_says_which_way_is_better(here, sweep: Path):
    for mode, seed in (("min", "0"), ("max", "1")):
        write(sweep, job(0, 0.25), job(1, 0.5), metric="loss", mode=mode)
        assert here("best.py", "sweep=s").last_line.endswith(f"seed={seed}")


def test_the_best_may_be_listed(here):
    lines = [line.split() for line in here("best.py", "sweep=s", "top=5").out.splitlines()]
    assert lines == [
        [
            "rank",
            "job",
            "validation",
            "accuracy",
            "model.hidden",
            "optimizer.learning_rate",
            "seed",
        ],
        ["1", "1", "75.00", "%", "[16]", "0.001", "1"],
        ["2", "0", "50.00", "%", "[8]", "0.001", "0"],
    ]
    assert len(here("best.py", "sweep=s", "top=1").out.splitlines()) == 2


def train(sweep: Path, number: int, **metrics: float) -> None:
    (sweep / str(number)).mkdir()
    row = {"step": 3, "split": "train", **metrics}
    (sweep / str(number) / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_without_a_validation_part_the_training_rows_in_the_run_folders_count(here, sweep: Path):
    write(sweep, *(job(n, None, summary={"steps": 3}) for n in range(4)))
    train(sweep, 1, loss=0.5, accuracy=0.75)
    train(sweep, 2, loss=0.25, accuracy=0.5)
    assert here("best.py", "sweep=s").last_line.endswith("seed=2")
    assert "training loss" in here("best.py", "sweep=s", "top=1").out
    assert here("best.py", "sweep=s", "metric=accuracy").last_line.endswith("seed=1")
    assert "training accuracy" in here("best.py", "sweep=s", "metric=accuracy", "top=1").out
    assert "choose steps, loss or accuracy" in here("best.py", "sweep=s", "metric=x").complaint


CONFIGS = {
    "nothing": Config(),
    "groups": Config(
        model=MLP(hidden=(64, 32), dropout=0.25), optimizer=OPTIMIZERS["muon"](), seed=7,
        train=Train(steps=9, clip_norm=0.5, remat=("blocks/*",), patience=None),
    ),
    "schedule": from_dict({"schedule": {"name": "cosine"}, "train": {"steps": 60}}),
    "its own schedule": Config(schedule=Cosine(), train=Train(steps=60, schedule_steps=90)),
    "text": from_dict({
        "model": {"name": "mlp"}, "data": {"name": "npz", "path": "a b/it's, mine (1).npz"},
        "train": {"frozen": ["stem a", "x,y"]},
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_training_with_the_overrides_is_training_the_job_again(here, sweep: Path, name: str):
    config = CONFIGS[name]
    (sweep / "1").mkdir()
    (sweep / "1" / "config.yaml").write_text(yaml.safe_dump(saved(config)), encoding="utf-8")
    ended = here("best.py", "sweep=s")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    words = shlex.split(ended.out)
    assert ("xargs" in ended.err) == (name == "text")
    if name != "text":  # then `$(…)` serves, too
        assert words == ended.out.split()
    shown = here("train.py", *words, "--cfg", "job")
    assert shown.code == 0, shown.err
    values = yaml.safe_load(shown.out)
    found = from_dict({field.name: values[field.name] for field in dataclasses.fields(Config)})
    assert found == config
    assert to_dict(found) == to_dict(config)


def test_a_schedule_that_ends_with_the_run_does_so_with_other_steps(here, sweep: Path):
    (sweep / "1").mkdir()
    text = yaml.safe_dump(saved(CONFIGS["schedule"]))
    (sweep / "1" / "config.yaml").write_text(text, encoding="utf-8")
    assert here("best.py", "sweep=s").out == "schedule=cosine train.steps=60\n"


def test_a_shell_hands_the_answer_to_the_next_command(
    sweep: Path, tmp_path: Path, script_environment: dict[str, str]
):
    write(sweep, job(1, 0.5, settings={"model.name": "mlp", "model.hidden": [48], "seed": 5}))
    best, train = (
        f"'{sys.executable}' '{ROOT}/experiments/{name}.py'" for name in ("best", "train")
    )
    command = f"{train} $({best} sweep=s) train.steps=3 --cfg job"
    ended = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**script_environment, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    values = yaml.safe_load(ended.stdout)
    assert (values["model"]["name"], values["model"]["hidden"]) == ("mlp", [48])
    assert (values["seed"], values["train"]["steps"]) == (5, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "sweep is missing: give sweep=<folder of a sweep>"),
        (["sweep=nope"], "sweep folder 'nope' does not exist: give the folder of a sweep"),
        (["sweep=."], "'.' is not the folder of a sweep: it has no sweep.json"),
        (["sweep=s", "metric=acuracy"], "'acuracy', which no job has: did you mean accuracy?"),
        (["sweep=s", "metric=x"], "metric is 'x', which no job has: choose accuracy, loss, reward"),
        (
            ["sweep=s", "metric=reward"],
            "does not say which way is better: give mode=max or mode=min",
        ),
        (["sweep=s", "mode=up"], "mode is 'up': choose auto, min or max"),
        (["sweep=s", "top=0"], "top is 0: give a whole number, 1 or more"),
        (["sweeep=s"], "sweeep is not a setting: did you mean sweep?"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_one_line(here, arguments: list[str], words: str):
    assert words in here("best.py", *arguments).complaint


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"jobs": 3}', '{"jobs": [3]}', '{"jobs": [{}]}', "\x00",
     '{"jobs": [{"number": 0, "settings": [1]}]}', '{"jobs": [{"number": "0"}]}',
     '{"jobs": [{"number": 0, "summary": 3}]}', '{"jobs": [{"number": true}]}'],
)  # fmt: skip
def test_a_damaged_sweep_is_refused_in_one_line(here, sweep: Path, text: str):
    (sweep / "sweep.json").write_text(text)
    assert "is damaged: start the sweep again" in here("best.py", "sweep=s").complaint


def test_files_that_cannot_be_read_are_refused_in_one_line(
    here, sweep: Path, monkeypatch: pytest.MonkeyPatch
):
    write(sweep, job(0, None), job(1, None))
    (sweep / "0").mkdir()
    (sweep / "0" / "metrics.jsonl").write_text("{\n{}\n")
    complaint = here("best.py", "sweep=s").complaint
    assert complaint == "metrics.jsonl, line 1 is no row of metrics: delete the line, or start anew"
    read_text = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "sweep.json":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "is damaged: start the sweep again" in here("best.py", "sweep=s").complaint


def test_a_sweep_without_a_finished_job_says_how_its_jobs_ended(here, sweep: Path):
    write(sweep, job(0, 0.5, "diverged"), job(1, 0.5, "diverged"), job(2, None, "waiting"))
    complaint = here("best.py", "sweep=s").complaint
    assert "no job of sweep 's' has finished with a validation accuracy" in complaint
    assert "(2 diverged, 1 waiting): start it again to go on with it" in complaint
    write(sweep, job(0, 0.5, "diverged"))
    assert "(1 diverged): give it other settings" in here("best.py", "sweep=s").complaint
    write(sweep, job(0, 0.5, "diverged"), job(1, 0.5, "interrupted"))
    assert "1 interrupted): start it again" in here("best.py", "sweep=s").complaint
    write(sweep)
    assert "(no jobs): give it other settings" in here("best.py", "sweep=s").complaint
    assert "which no job has: choose none" in here("best.py", "sweep=s", "metric=x").complaint
