"""Generated command lines: refused in one line or understood, never a traceback."""

import random
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.config import Config, ConfigError, groups, slots

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
VALID = [
    "seed=3", "run_dir=runs/a", "quiet=true", "resume=null", "train.steps=20", "train.form=chunk",
    "model=mlp", "model.hidden=[64,32]", "data.shape=[8,8,1]", "experiment=two_layer",
    "optimizer.learning_rate=1e-3", "optimizer=sgd", "data.path=a.npz", "train.patience=null",
    "hydra.verbose=true", "optimizer=muon", "schedule=cosine", "train.clip_norm=1",
    "optimizer.no_decay=[**/bias,head]", 'optimizer.learning_rates=["head=0.5"]',
]  # fmt: skip
VALUES = [
    "", "null", "true", "-1", "0", "1", "1e400", "nan", "-inf", "1" * 400, "[]", "[1,2]", "{a: 1}",
    "{", "'", '"', "\\", "a b", "a,b", "${seed}", "${", "$", "range(1,3)", "glob(*)", "x" * 5000,
    "é\n", "\0",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def scripts_are_importable() -> Iterator[None]:
    sys.path.insert(0, str(EXPERIMENTS))
    yield
    sys.path.remove(str(EXPERIMENTS))
    for name in ("frame", "command_line"):
        sys.modules.pop(name, None)


def understood(word: str, *, multirun: bool) -> bool:
    from command_line import check_overrides  # pyright: ignore[reportMissingImports]

    try:
        arguments = Namespace(multirun=multirun, overrides=[word])
        check_overrides(arguments, Config, ["digits_cnn", "two_layer"], ["train.log_every"])
    except ConfigError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 600
        return False
    return True


def mutated(source: random.Random) -> str:
    name, _, value = source.choice(VALID).partition("=")
    match source.randrange(5):
        case 0:
            return f"{name}={source.choice(VALUES)}"
        case 1:
            return f"{source.choice(['+', '++', '~', '@', '.', ' '])}{name}={value}"
        case 2:
            return f"{source.choice([*slots(), *groups()])}={source.choice(VALUES)}"
        case _:
            word = f"{name}={value}"
            place = source.randrange(len(word))
            letter = source.choice("abz_.=/@:,[]{}()'\"\\$ 019\t")
            return word[:place] + letter + word[place + source.randrange(2) :]


@pytest.mark.parametrize("word", VALID)
def test_what_is_right_is_understood(word: str):
    assert understood(word, multirun=False)


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_changed_command_line_is_refused_in_one_line_or_understood(count: int, multirun: bool):
    source = random.Random(count)
    taken = sum(understood(mutated(source), multirun=multirun) for _ in range(count))
    assert 0 < taken < 0.6 * count


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.soak)])
def test_what_is_understood_word_by_word_is_composed_or_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, count: int
):
    import frame  # pyright: ignore[reportMissingImports]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    source, codes = random.Random(count), list[Any]()
    while len(codes) < count:
        words = [word for word in (mutated(source), mutated(source)) if "hydra" not in word]
        if not all(understood(word, multirun=False) for word in words):
            continue
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        with pytest.raises(SystemExit) as left:
            frame.run(lambda config, job: None, Config)
        codes.append(left.value.code)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == (1 if codes[-1] == 2 else 0), (words, printed.err)
    assert set(codes) == {0, 2}


@settings(deadline=None)
@given(word=st.text(max_size=80), multirun=st.booleans())
def test_any_text_is_refused_in_one_line_or_understood(word: Any, multirun: bool):
    understood(word, multirun=multirun)
