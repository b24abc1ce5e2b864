"""Text from the command line, from a run folder alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from functorch_kit.config import Config, GPTNano, Text, Train, build


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose text is gone."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text("to be, or not to be\n" * 40)
    job = Config(
        GPTNano(layers=1, heads=1, width=8),
        Text(path=str(text), context=8),
        train=Train(steps=3, batch_size=4),
        run_dir=str(folder / "run"),
        quiet=True,
    )
    with jax.numpy_dtype_promotion("standard"):
        build(job).fit()
    text.unlink()
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, which a script may read as ``run=run``."""
    with jax.numpy_dtype_promotion("standard"):  # as a script has it
        yield shutil.copytree(trained, tmp_path / "run")


def test_a_run_goes_on_with_a_prompt(script, run: Path):
    ended = script("generate.py", "run=run", "prompt=to be, or", "tokens=30", "seed=3")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("to be, or")
    assert len(ended.out) == len("to be, or") + 30 + 1
    assert ended.err.startswith("30 tokens in ")
    assert ended.err.endswith("step 3 of run; texts ended: 1 by length\n")


def test_streamed_in_a_batch_and_again_it_is_the_same_text(here, run: Path):
    options = ("generate.py", "run=run", "prompt=not", "tokens=20", "chunk=3", "quiet=true")
    one = here(*options)
    assert (one.code, one.err) == (0, "")
    assert here(*options).out == one.out
    assert here(*options, "stream=true").out == one.out
    several = here(*options, "samples=3").out.split("\n---------------\n")
    assert len(several) == 3
    assert several[0] == one.out.removesuffix("\n")
    assert here(*options, "seed=1").out != one.out


def test_the_likeliest_text_has_no_seed_and_a_context_may_end_it(here, run: Path):
    options = ("generate.py", "run=run", "prompt=to", "tokens=9")
    likeliest = here(*options, "temperature=0", "seed=1", "quiet=true").out
    assert here(*options, "temperature=0", "seed=2", "quiet=true").out == likeliest
    assert here(*options, "top_k=1", "quiet=true").out == likeliest
    stopped = here(*options, "overflow=stop")
    assert len(stopped.out) == 9 + 1
    assert "texts ended: 1 by context" in stopped.err


def test_a_character_ends_a_text(here, run: Path):
    options = ("generate.py", "run=run", "prompt=be", "tokens=400", "temperature=2", "end=t")
    ended = here(*options)
    assert "t" not in ended.out
    assert "1 by end" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt=to go"], "character 'g' is not in the vocabulary of"),
        (["prompt=''"], "prompt is empty: give some text to go on with"),
        (["prompt=to", "end=be"], "end is 'be', which is 2 tokens: give one"),
        (["prompt=to", "samples=2", "stream=true"], "stream=true prints one text as it comes"),
        (["temperature=-1"], "temperature is -1: give a number, 0 or more"),
        (["top_k=0"], "top_k is 0: give a whole number, 1 or more"),
        (["top_p=0"], "top_p is 0: give a number above 0 and up to 1"),
        (["tokens=0"], "tokens is 0"),
        (["overflow=wrap"], "overflow is 'wrap': choose slide or stop"),
        (["propmt=to"], "did you mean prompt?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(here, run: Path, words, message):
    assert message in here("generate.py", "run=run", *words).complaint


def test_a_run_has_to_be_given_and_to_be_one(here):
    assert here("generate.py").complaint == "run is missing: give run=<folder of a run>"
    assert "does not exist" in here("generate.py", "run=nowhere").complaint
