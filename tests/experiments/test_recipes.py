"""The recipes for Shakespeare by character reach the losses that their files state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit.config import build, from_dict
from functorch_kit.report import read_metrics

ROOT = Path(__file__).parents[2]
TEXT = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
# Most that the mean of three seeds may be, in nats a character.
RECIPES = {"shakespeare_char_cpu": 1.905, "shakespeare_char_cpu_best": 1.80}


@pytest.mark.parametrize(
    "recipe",
    ["shakespeare_char_cpu_best", pytest.param("shakespeare_char_cpu", marks=pytest.mark.soak)],
)
def test_a_recipe_learns_on_the_text_that_comes_with_python(script, tmp_path: Path, recipe: str):
    short = ["train.steps=60", "train.eval_every=30", "train.log_every=1", "run_dir=a"]
    few = ["model.layers=2", "model.width=32", "schedule.warmup_steps=5", "quiet=true"]
    ended = script("train.py", f"experiment={recipe}", *short, *few)
    assert ended.code == 0, ended.err
    told = json.loads((tmp_path / "a" / "summary.json").read_text())
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    first = next(row["loss"] for row in rows if row["split"] == "train")
    kept = json.loads((tmp_path / "a" / "vocabulary.json").read_text())
    # It begins as an even guess; half a nat less is more than chance.
    assert first == pytest.approx(np.log(len(kept["characters"])), abs=0.3)
    assert told["validation_loss"] < first - 0.5
    assert "test_loss" not in told
    assert ended.last_line.startswith("validation loss ")

    generated = script("generate.py", "run=a", "prompt=The ", "tokens=70", "samples=2")
    assert generated.code == 0, generated.err
    assert "140 tokens" in generated.err


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_recipes_see_the_same_data(here, recipe: str):
    shown = here("train.py", f"experiment={recipe}", "--cfg", "job")
    settings = _read(shown.out)
    data, train = settings["data"], settings["train"]
    assert (train["steps"], train["batch_size"], train["accumulate"]) == (2000, 12, 1)
    assert (data["name"], data["context"], data["validation"]) == ("text", 64, 0.1)


@pytest.mark.soak
@pytest.mark.skipif(not TEXT.is_file(), reason=f"needs the text {TEXT}, which is not here")
@pytest.mark.parametrize("recipe", RECIPES)
def test_three_seeds_reach_the_stated_loss(here, recipe: str, standard_promotion):
    settings = _read(here("train.py", f"experiment={recipe}", "--cfg", "job").out)
    settings["data"]["path"] = str(TEXT)
    losses = []
    for seed in range(3):
        settings |= {"seed": seed, "quiet": True, "run_dir": None}
        result = build(from_dict(settings)).fit()
        losses.append(result.summary["validation_loss"])
    assert np.mean(losses) <= RECIPES[recipe], losses


def test_the_validation_part_is_the_last_tenth_in_windows_side_by_side(here):
    settings = _read(here("train.py", "experiment=shakespeare_char_cpu", "--cfg", "job").out)
    data = build(from_dict(settings)).data
    whole = len(data.train.tokens) + len(data.validation.tokens)
    assert len(data.train.tokens) == int(whole * 0.9)
    assert data.test is None
    counted = sum(data.validation(step)["weight"].sum() for step in range(data.validation.steps))
    assert counted == len(data.validation.tokens) - 1
    assert data.validation.stride == data.validation.context == 64


def _read(shown: str) -> dict[str, Any]:
    import yaml

    of_the_script = ("supervise", "max_restarts", "backoff", "launch")
    return {k: v for k, v in yaml.safe_load(shown).items() if k not in of_the_script}
