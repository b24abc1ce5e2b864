"""Run folders, and what may change when a run goes on."""

from pathlib import Path

import pytest

from functorch_kit.config import (
    MLP,
    Config,
    ConfigError,
    Train,
    load_run,
    new_run_dir,
    resumed,
    to_dict,
)
from functorch_kit.config.runs import saved
from functorch_kit.errors import UserError
from functorch_kit.run import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> str:
    config = Config(model=MLP(hidden=(7,)), train=Train(steps=40), seed=5, run_dir="elsewhere")
    RunFolder(tmp_path / "run").begin(saved(config))
    return str(tmp_path / "run")


def test_a_run_keeps_its_configuration_and_knows_where_it_is_now(run: str):
    config = Config(model=MLP(hidden=(7,)), train=Train(steps=40), seed=5, run_dir=run)
    assert load_run(run) == config


def test_a_run_goes_on_with_its_own_configuration(run: str):
    asked = Config(resume=run, train=Train(steps=80, log_every=3), quiet=True)
    config = resumed(asked, ["resume", "train.steps", "quiet"])
    expected = Config(
        model=MLP(hidden=(7,)), train=Train(steps=80), seed=5, run_dir=run, resume=run, quiet=True
    )
    assert config == expected


@pytest.mark.parametrize(
    "name", ["seed", "model", "experiment", "optimizer.learning_rate", "run_dir"]
)
def test_what_is_computed_cannot_change_when_a_run_goes_on(run: str, name: str):
    with pytest.raises(
        ConfigError, match=f"^{name} cannot change when a run is resumed: only train"
    ):
        resumed(Config(resume=run), ["resume", name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a run folder: it has no config.yaml"),
        ("model: {name: mpl}", "config.yaml': model=mpl is not a choice: .* did you mean mlp"),
        ("trian: {}", "config.yaml': trian is not a setting: did you mean train"),
        ("[1]", "is not a run's configuration"),
        ("{", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_folder_without_a_usable_configuration_is_refused(
    tmp_path: Path, text: str | None, message: str
):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run folder '.*nope' does not exist"):
        load_run(tmp_path / "nope")


def test_two_new_runs_of_one_second_get_two_folders(tmp_path: Path):
    config = Config(model=MLP())
    folders = [new_run_dir(config, tmp_path / "runs") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.name.startswith("digits-mlp-2") and folder.is_dir() for folder in folders)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be made .*: give run_dir=<folder>"):
        new_run_dir(Config(), tmp_path / "file")


def test_the_orders_of_the_moment_are_not_kept():
    left_out = set(to_dict(Config())) - set(saved(Config()))
    assert left_out == {"run_dir", "resume", "overwrite", "quiet"}
