from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import Characters, DataError, Sequential, Shuffled, Windows

TOKENS = np.arange(100, 123, dtype=np.int32)
WINDOWS = {
    "shuffled": Windows(TOKENS, 4, Shuffled(19, 3, seed=2)),
    "sequential": Windows(TOKENS, 4, Sequential(6, 4), stride=4),
}


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_bytes(("Über allen Gipfeln\r\nist Ruh, " * 20).encode())
    return path


def _with(windows: Windows, resident: bool) -> Windows:
    return Windows(windows.tokens, windows.context, windows.order, windows.stride, resident)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_the_batch_inside_a_program_is_the_batch_on_the_host(windows, resident, maybe_jit):
    windows = _with(windows, resident)
    constant, rows = jax.device_put(windows.constant()), windows.rows(0, 3)
    batch = maybe_jit(windows.batch)
    for step in range(3):
        row = jax.device_put({name: leaf[step] for name, leaf in rows.items()})
        inside = batch(constant, row)
        outside = windows(step)
        assert set(inside) == set(outside) == set(windows.spec)
        for name, values in outside.items():
            np.testing.assert_array_equal(inside[name], values)
            spec = windows.spec[name]
            assert (inside[name].shape, inside[name].dtype) == (spec.shape, spec.dtype)
            assert (values.shape, values.dtype) == (spec.shape, spec.dtype)
    for name, spec in windows.row_spec.items():
        assert (rows[name].shape[1:], rows[name].dtype) == (spec.shape, spec.dtype)


def test_only_window_starts_cross_to_the_device():
    windows = WINDOWS["shuffled"]
    assert set(windows.constant()) == {"tokens"}
    assert sum(leaf.nbytes for leaf in windows.rows(0, 10).values()) == 10 * 3 * 4


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_what_follows_a_token_is_its_target(windows):
    for step in range(4):
        batch = windows(step)
        counted = batch.get("weight", np.ones((1, 1))) > 0
        assert ((batch["y"] == batch["x"] + 1) | ~counted).all()


def test_every_window_trains_once_before_any_comes_again():
    starts = WINDOWS["shuffled"].rows(0, 19)["start"].reshape(3, 19)
    for epoch in starts:
        assert sorted(epoch.tolist()) == list(range(19))
    assert starts[0].tolist() != starts[1].tolist()


@pytest.mark.parametrize("length", range(6, 15))
def test_evaluation_predicts_every_token_but_the_first_once(length):
    count = -(-(length - 1) // 4)
    parts = Windows(TOKENS[:length], 4, Sequential(count, 2), stride=4)
    batches = [parts(step) for step in range(parts.steps or 0)]
    seen = [t for b in batches for t in b["y"][b["weight"] > 0].tolist()]
    assert seen == TOKENS[1:length].tolist()


def test_a_batch_depends_on_seed_and_step_alone(poem: Path):
    one, same = (data.text(poem, batch_size=3, seed=5).train for _ in range(2))
    np.testing.assert_array_equal(one(7)["x"], same(7)["x"])
    np.testing.assert_array_equal(one.rows(0, 8)["start"][7], same.rows(7, 1)["start"][0])
    other = data.text(poem, batch_size=3, seed=6).train
    assert (one(7)["x"] != other(7)["x"]).any()


def test_the_parts_are_cut_by_position_and_keep_every_character(poem: Path):
    written = poem.read_bytes().decode()
    parts = data.text(poem, batch_size=2, context=8, validation=0.25)
    assert parts.test is None
    assert parts.name == "poem"
    cut = int(0.75 * len(written))
    assert parts.vocabulary.decode(parts.train.tokens) == written[:cut]
    assert parts.vocabulary.decode(parts.validation.tokens) == written[cut:]
    assert sum(parts.validation(s)["weight"].sum() for s in range(parts.validation.steps)) == (
        len(written) - cut - 1
    )
    assert "\r" in parts.vocabulary.characters


def test_an_epoch_has_as_many_tokens_as_the_text(poem: Path):
    train = data.text(poem, batch_size=2, context=8).train
    assert train.steps_per_epoch == -(-len(train.tokens) // 16)
    assert train.order.count == len(train.tokens) - 8
    assert train.steps is None


def test_nothing_is_held_out_if_nothing_is_asked_for(poem: Path):
    parts = data.text(poem, batch_size=2, context=8, validation=0)
    assert parts.validation is None
    assert len(parts.train.tokens) == len(poem.read_bytes().decode())


def test_without_a_file_there_is_the_prose_that_python_carries():
    prose = data.text(batch_size=12)
    assert len(prose.train.tokens) > 300_000
    assert 90 < len(prose.vocabulary) < 130
    assert "assert" in prose.vocabulary.decode(prose.train.tokens[:2000])


def test_characters_are_numbered_in_order():
    letters = Characters.of("züa𝄞a")
    assert letters.characters == "azü𝄞"
    assert letters.encode("𝄞za").tolist() == [3, 1, 0]
    assert letters.encode("").tolist() == []
    assert letters.decode(letters.encode("zaü𝄞")) == "zaü𝄞"


@pytest.mark.parametrize("character", ["b", "~", "\0", "𝄞"])
def test_an_unknown_character_is_refused_by_name(character):
    with pytest.raises(DataError, match="is not in the vocabulary of 2") as caught:
        Characters.of("az").encode(f"az{character}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "does not exist: give data.path=<a UTF-8 file>"),
        (b"abc\xff", {}, r"is not UTF-8 \(byte 3\): save it in UTF-8"),
        (b"", {}, "is empty"),
        (b"abcd" * 10, {}, "leaves 36 characters to train on, but a window takes 65"),
        (b"abcd" * 30, {"validation": 0.005}, "leaves 1 characters to validate on"),
        (b"abcd", {"context": 4, "validation": 0}, "leaves 4 characters to train on"),
        (b"abcd", {"context": 0}, "context is 0"),
        (b"abcd", {"batch_size": 0}, "batch_size 0"),
        (b"abcd", {"validation": 1.0}, "validation is 1.0: give a share from 0"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, options, message):
    path = tmp_path / "a.txt"
    given: dict[str, Any] = {"batch_size": 2, **options}
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.text(path, **given)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_text(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        data.text(tmp_path, batch_size=2)
