"""A run folder alone is a language model again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit.config import (
    MLP,
    Config,
    ConfigError,
    GPTNano,
    Text,
    Train,
    build,
    load_language_model,
)
from functorch_kit.errors import UserError
from functorch_kit.run import RunError

pytestmark = pytest.mark.usefixtures("standard_promotion")  # optax runs in these


def _job(folder: Path, text: Path, **train: Any) -> Config:
    settings: dict[str, Any] = {"steps": 4, "eval_every": 2, "batch_size": 4, **train}
    return Config(
        GPTNano(layers=1, heads=1, width=4),
        Text(path=str(text), context=8),
        train=Train(**settings),
        run_dir=str(folder),
        quiet=True,
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("abcabd" * 60)
    return path


@pytest.mark.parametrize("train", [{}, {"ema_decay": 0.5}], ids=["params", "average"])
def test_the_best_parameters_that_were_evaluated_come_back_without_the_text(
    tmp_path: Path, text: Path, train
):
    result = build(_job(tmp_path / "run", text, **train)).fit()
    text.unlink()
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    found = load_language_model(moved)
    assert found.step == result.summary["best_step"]
    assert found.vocabulary.decode([0, 1, 2, 3]) == "abcd"
    assert (found.config.context, found.config.vocabulary, found.config.width) == (8, 4, 4)
    jax.tree.map(np.testing.assert_array_equal, found.params, result.params)


def test_a_run_by_tokens_keeps_its_tokenizer(tmp_path: Path, text: Path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4}, [("a", "b")])
    )
    made.decoder = tokenizers.decoders.Fuse()
    made.save(str(tmp_path / "pairs.json"))
    job = _job(tmp_path / "run", text)
    job.data.tokenizer = str(tmp_path / "pairs.json")
    build(job).fit()
    text.unlink()
    (tmp_path / "pairs.json").unlink()
    found = load_language_model(tmp_path / "run")
    assert found.config.vocabulary == 5
    assert found.vocabulary.encode("abcabd").tolist() == [4, 2, 4, 3]
    assert found.vocabulary.decode([4, 2, 4, 3]) == "abcabd"


def test_a_run_goes_on_with_its_own_vocabulary_only(tmp_path: Path, text: Path):
    build(_job(tmp_path / "run", text)).fit()
    text.write_text("abcxyz" * 60)
    again = dataclasses.replace(_job(tmp_path / "run", text, steps=6), resume=str(tmp_path / "run"))
    build_of_six = build(again)
    with pytest.raises(UserError):  # other shapes, or other words
        build_of_six.fit()
    text.write_text("abcabe" * 60)
    with pytest.raises(RunError, match="has another vocabulary: resume it with the text") as caught:
        build(again).fit()
    assert "\n" not in str(caught.value)
    text.write_text("abcabd" * 60)
    assert build(again).fit().summary["steps"] == 6


def test_what_is_no_language_model_is_refused_in_one_line(tmp_path: Path, text: Path):
    with pytest.raises(UserError, match="does not exist: give the folder of a run"):
        load_language_model(tmp_path / "run")
    build(_job(tmp_path / "run", text)).fit()
    words = (tmp_path / "run" / "vocabulary.json").read_text()
    (tmp_path / "run" / "vocabulary.json").write_text("{")
    with pytest.raises(UserError, match=r"vocabulary\.json' cannot be read"):
        load_language_model(tmp_path / "run")
    (tmp_path / "run" / "vocabulary.json").unlink()
    with pytest.raises(ConfigError, match=r"has no vocabulary\.json: resume it"):
        load_language_model(tmp_path / "run")
    (tmp_path / "run" / "vocabulary.json").write_text(words)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ConfigError, match="has no checkpoint: train it first"):
        load_language_model(tmp_path / "run")
    other = Config(MLP(hidden=(4,)), run_dir=str(tmp_path / "mlp"), quiet=True)
    other.train.steps = 2
    build(other).fit()
    with pytest.raises(
        ConfigError, match="model=mlp generates no text: give a run of model=gpt_na"
    ):
        load_language_model(tmp_path / "mlp")
