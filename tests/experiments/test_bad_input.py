"""What a user gets wrong ends in one line and exit code 2, before anything is read or compiled."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ISSUE = [
    ("train.py", ["optimizer.learning_rat=1"],
     "optimizer.learning_rat is not a setting: did you mean optimizer.learning_rate?"),
    ("train.py", ["train.steps=abc"], "train.steps is 'abc': give a whole number, 1 or more"),
    ("train.py", ["train.batch_size=0"], "train.batch_size is 0: give a whole number, 1 or more"),
    ("train.py", ["model=resnett"],
     "model=resnett is not a choice: choose cnn, mlp, resnet18, resnet34 or 32 others, see"
     " --help; did you mean resnet18?"),
    ("train.py", ["+new=1"],
     "'+new=1' adds a setting: only those that exist can be changed, see --help"),
    ("train.py", ["resume=nope"], "run folder 'nope' does not exist: give the folder of a run"),
    ("evaluate.py", ["run=nope"], "run folder 'nope' does not exist: give the folder of a run"),
    ("compare.py", ["variants=[jitt]"],
     "variants: there is no 'jitt', did you mean 'jit'? (one or more of eager, disable_jit, jit,"
     " aot, scan[=<steps>], as_given, unroll, donate, vmap, sharded=<devices>, cold, warm,"
     " accumulate=<micro-batches>, remat, bf16, fp16, joined by '+')"),
]  # fmt: skip
MORE = [
    ("train.py", ["++new=1"], "'++new=1' adds a setting: "),
    ("train.py", ["++train.steps=0"], "'++train.steps=0' adds a setting, and train.steps exists"),
    ("train.py", ["+experiment=two_layer"], "adds a setting, and experiment exists"),
    ("train.py", ["~train.patience"], "'~train.patience' removes a setting: "),
    ("train.py", ["~model"], "'~model' removes a setting: "),
    ("train.py", ["train.steps"], "'train.steps' is not a setting: write name=value"),
    ("train.py", ["train.steps=[1"], "'train.steps=[1' cannot be read: write name='value', with"),
    ("train.py", ["=1"], "'' is not a setting: see --help"),
    ("train.py", ["--steps", "3"], "unrecognized arguments: --steps"),
    ("train.py", ["seed=1,2"], "seed has several values: add -m for a run of each"),
    ("train.py", ["model=null"], "model=null is not a choice"),
    ("train.py", ["model={name: mlp}"], "is not a choice: choose cnn, mlp"),
    ("train.py", ["train=quick"], "train=quick is not a choice: choose default"),
    ("train.py", ["experiment=two_layers"], "did you mean two_layer?"),
    ("train.py", ["model.name=mlp"], "model.name follows from the choice: give model=gpt_nano"),
    ("train.py", ["model@optimizer=cnn"], "places a group elsewhere: write model=<choice>"),
    ("train.py", ["model.features=[3]", "model=mlp"],
     "model.features is a setting of model=cnn, not of the model"),
    ("train.py", ["experiment=two_layer", "model=cnn"],
     "model.hidden is a setting of model=mlp, model=vit_ti16, model=vit_s16, model=vit_b32 or 12"
     " others, not of model=cnn"),
    ("train.py", ["init_from=nope.pth"], "'nope.pth' does not exist: give a file of weights, or"),
    ("train.py", [f"init_from={ROOT / 'README.md'}"], "is no file of weights by its name"),
    ("train.py", [f"init_from={ROOT / 'tests'}"], "holds no weights: model.safetensors or the"),
    ("train.py", ["init_form=a"], "init_form is not a setting: did you mean init_from?"),
    ("train.py", ["resume=a", "init_from=b"], "init_from cannot change when a run is resumed"),
    ("train.py", ["model=resnet5"], "did you mean resnet50?"),
    ("train.py", ["seed=${nothing}"], "Interpolation key 'nothing' not found"),
    ("train.py", ["seed=${train.form}"], "seed is 'auto': give a whole number, 0 or more"),
    ("train.py", ["optimizer=muonn"], "optimizer=muonn is not a choice: choose sgd, adam, adamw, "),
    ("train.py", ["optimizer=muonn"], "others, see --help; did you mean muon?"),
    ("train.py", ["schedule=cosin"], "did you mean cosine?"),
    ("train.py", ["schedule.warmup_steps=3"], "schedule.warmup_steps is a setting of schedule=war"),
    ("train.py", ["optimizer.learning_rates=[head]"], "give a path pattern=factor, such as stem=0"),
    ("train.py", ["optimizer.learning_rates=[head=1]"], 'write text in a list as ["stem=0.1"]'),
    ("train.py", ["optimizer=lbfgs", "schedule=cosine"], "schedule=cosine needs a learning rate"),
    ("train.py", ["train.best=acuracy"], "give train.best_mode=max or train.best_mode=min; did"),
    ("train.py", ["train.evaluate=ema"], "give train.ema_decay=0.999"),
    ("train.py", ["model=mlp", "optimizer.learning_rates=['haed=1']", "run_dir=a"],
     "learning_rates: 'haed' names nothing, did you mean 'head'"),
    ("train.py", ["hydra.nothing=1"], "hydra.nothing is not a setting"),
    ("train.py", ["-m", "hydra/launcher=nothing"], "Could not find 'hydra/launcher/nothing'"),
    ("train.py", ["--config-name=nothing"], "Cannot find primary config 'nothing'"),
    ("train.py", ["--config-dir=nothing"], "Additional config directory"),
    ("train.py", ["-m", "--cfg", "job"], "Only one of"),
    ("train.py", ["-m", "seed=0,x"], "seed is 'x': give a whole number"),
    ("train.py", ["-m", "model=cnn,mlpp"], "model=mlpp is not a choice"),
    ("train.py", ["resume=a", "seed=3"], "seed cannot change when a run is resumed"),
    ("train.py", ["resume=a", "model=mlp"], "model cannot change when a run is resumed"),
    ("train.py", ["supervise=true", "max_restarts=-1"], "max_restarts is -1: give a whole number"),
    ("train.py", ["-m", "supervise=true", "seed=0,1"], "supervise=true is for one run: leave out"),
    ("train.py", ["resume=a", "seed=3", "max_restarts=1"], "seed cannot change when a run is resu"),
    ("compare.py", ["supervise=true"], "supervise is not a setting"),
    ("verify_resume.py", ["steps=1"], "steps is 1: give a whole number, 2 or more"),
    ("verify_resume.py", ["moments=[never]"], "moments[0] is 'never': choose published or between"),
    ("verify_resume.py", ["train.steps=3"], "train.steps means nothing to this script"),
    ("train.py", ["data=npz"], "data.path is missing: give data.path=<file.npz>"),
    ("train.py", ["data=npz", "data.path=nope.npz"], "data file 'nope.npz' does not exist"),
    ("train.py", ["data=npz", f"data.path={ROOT / 'README.md'}"], "is not an .npz file"),
    ("train.py", ["data=npz", f"data.path={ROOT}"], "does not exist"),
    ("train.py", ["train.batch_size=5000"], "batch_size is 5000, but there are 1258 training"),
    ("train.py", ["data=gaussian"], "model=cnn needs images"),
    ("train.py", ["model=gpt_nano"], "model=gpt_nano needs text, and data=digits has none"),
    ("train.py", ["data=text"], "model=cnn takes numbers, and data=text is text: give model=gpt"),
    ("train.py", ["model=gpt_nano", "data=text", "data.path=nope.txt"],
     "text file 'nope.txt' does not exist: give data.path=<a UTF-8 file>"),
    ("train.py", [f"run_dir={ROOT / 'README.md'}"], "is a file: choose another run_dir"),
    ("evaluate.py", [], "run is missing: give run=<folder of a run>"),
    ("evaluate.py", ["rum=a"], "rum is not a setting: did you mean run?"),
    ("evaluate.py", ["run=a", "split=train"], "split is 'train': choose test or validation"),
    ("evaluate.py", [f"run={ROOT}"], "is not a run folder: it has no config.yaml"),
    ("replay.py", [], "run is missing: give run=<folder of a run>"),
    ("replay.py", ["run=nope"], "run folder 'nope' does not exist: give the folder of a run"),
    ("replay.py", ["run=a", "step=0"], "step is 0: give a whole number, 1 or more"),
    ("compare.py", ["train.steps=3"], "train.steps means nothing to this script: leave it out"),
    ("compare.py", ["resume=a"], "resume means nothing to this script: leave it out"),
    ("compare.py", ["variants=jit"], "variants is 'jit': give a list of names, such as [eager"),
    ("profile_step.py", ["steps=0"], "steps is 0: give a whole number, 1 or more"),
    ("profile_step.py", ["train.steps=3"], "train.steps means nothing to this script"),
    ("compare.py", ["variants=[jit,scan=10+eager]"], "'eager' or 'scan', not both"),
    ("compare.py", ["contenders=[torch]"], "contenders[0] is 'torch': choose torch_eager,"),
    ("compare.py", ["contenders=[keras]", "model=mlp", "model.hidden=[9]"],
     "contenders have been written for model=cnn and model=mlp on data=digits at their default"),
    ("compare.py", ["rounds=0"], "rounds is 0: give a whole number, 1 or more"),
]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "arguments", "expected"), ISSUE)
def test_a_process_with_bad_input_says_one_line_and_leaves_nothing_behind(
    script, tmp_path: Path, name: str, arguments: list[str], expected: str
):
    ended = script(name, *arguments)
    assert ended.complaint == expected
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "arguments", "expected"), MORE)
def test_bad_input_is_refused_in_one_line(
    here, tmp_path: Path, name: str, arguments: list[str], expected: str
):
    ended = here(name, *arguments)
    assert expected in ended.complaint
    assert not (tmp_path / "checkpoints").exists()


def test_a_bad_setting_is_refused_before_jax_is_loaded(script, tmp_path: Path):
    began = time.perf_counter()
    assert script("train.py", "train.steps=0").code == 2
    assert time.perf_counter() - began < 5  # 0.3 s on an idle machine


def test_a_script_without_the_package_says_how_to_install_it(tmp_path: Path):
    # -S: without the folder where packages are installed.
    ended = subprocess.run(
        [sys.executable, "-S", str(ROOT / "experiments" / "train.py")],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: functorch_kit is not installed: pip install -e '.[experiments]' in the folder of"
        " pyproject.toml\n"
    )


def test_a_script_that_is_stopped_before_it_trains_says_so(here, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("functorch_kit.config.resumed", interrupted)
    ended = here("train.py", "resume=a")
    assert (ended.code, ended.err) == (130, "stopped\n")


@pytest.mark.parametrize(
    ("option", "expected"),
    [("--help", "optimizer.weight_decay=0.0001"), ("--hydra-help", "Hydra")],
)
def test_help_is_printed(script, option: str, expected: str):
    ended = script("train.py", option)
    assert ended.code == 0
    assert expected in ended.out


def test_the_configuration_is_shown_without_running(here, tmp_path: Path):
    ended = here("train.py", "model=mlp", "optimizer.learning_rate=3e-4", "--cfg", "job")
    assert ended.code == 0
    assert "name: mlp" in ended.out
    assert "learning_rate: 0.0003" in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["2026_01", "a,b", "a(1)", "1e3", "a=b", "true", "it's"])
def test_a_folder_may_have_any_name(here, folder: str):
    ended = here("train.py", f"run_dir={folder}", "--cfg", "job")
    assert ended.code == 0
    import yaml

    assert yaml.safe_load(ended.out)["run_dir"] == folder
