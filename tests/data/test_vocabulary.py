"""What a vocabulary says of itself is the vocabulary again; tokenizer files and their refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functorch_kit import data
from functorch_kit.data import Characters, DataError, Tokenizer, TokenNumbers, vocabulary_from

POEM = "Über allen Gipfeln ist Ruh, in allen Wipfeln spürest du kaum einen Hauch. " * 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Byte pairs of bytes, which know every text, and of words, which do not."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizers")
    of_bytes = tokenizers.Tokenizer(models.BPE())
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    of_bytes.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    of_words = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    of_words.pre_tokenizer = pre_tokenizers.Whitespace()
    dropping = tokenizers.Tokenizer(models.BPE())
    trained: list[tuple[Any, dict[str, Any]]] = [
        (of_bytes, {"initial_alphabet": alphabet, "special_tokens": special}),
        (of_words, {"special_tokens": ["[UNK]"]}),
        (dropping, {}),
    ]
    for made, options in trained:
        trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, **options)
        made.train_from_iterator([POEM], trainer)
    kinds = {"bytes": of_bytes, "words": of_words, "dropping": dropping}
    for name, made in kinds.items():
        made.save(str(folder / f"{name}.json"))
    return {name: folder / f"{name}.json" for name in kinds}


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_bytes(POEM.encode())
    return path


@pytest.mark.parametrize("vocabulary", [Characters.of("züa𝄞"), TokenNumbers(70)])
def test_a_vocabulary_is_made_again_of_what_it_says(vocabulary):
    kept = json.loads(json.dumps(vocabulary.to_dict()))
    assert vocabulary_from(kept) == vocabulary


def test_a_tokenizer_is_made_again_of_what_it_says_without_its_file(files):
    tokenizer = Tokenizer.read(files["bytes"])
    kept = json.loads(json.dumps(tokenizer.to_dict()))
    again = vocabulary_from(kept)
    text = "allen Wipfeln 世界"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert again.decode(again.encode(text)) == text
    assert len(again) == len(tokenizer)


def test_a_tokenizer_whose_content_has_changed_is_refused(files):
    kept = Tokenizer.read(files["bytes"]).to_dict()
    kept["content"] = kept["content"].replace("allen", "ellan")
    with pytest.raises(DataError, match="does not have its SHA-256"):
        vocabulary_from(kept)


@pytest.mark.parametrize("kept", [{}, {"kind": "words"}, {"kind": "characters"}])
def test_what_is_no_vocabulary_is_refused(kept):
    with pytest.raises(DataError, match="no vocabulary is kept as kind"):
        vocabulary_from(kept)


def test_a_text_by_tokens_is_cut_by_position_and_decodes_to_itself(files, poem: Path):
    parts = data.text(poem, tokenizer=files["bytes"], batch_size=2, context=8, validation=0.25)
    tokens = np.concatenate([parts.train.tokens, parts.validation.tokens])
    assert parts.vocabulary.decode(tokens) == POEM
    assert len(parts.train.tokens) == int(0.75 * len(tokens))
    assert len(tokens) < len(POEM.encode()) / 3
    assert tokens.max() < len(parts.vocabulary)


def test_an_added_token_counts_and_is_one_token(files):
    tokenizer = Tokenizer.read(files["bytes"])
    end = tokenizer.encode("<|endoftext|>")
    assert end.tolist() == [0]
    assert tokenizer.decode(end) == "<|endoftext|>"


@pytest.mark.parametrize(("kind", "text"), [("words", "allen 世 Ruh"), ("dropping", "allen世 Ruh")])
def test_a_character_without_a_token_is_refused_by_name(files, kind: str, text: str):
    tokenizer = Tokenizer.read(files[kind])
    assert len(tokenizer.encode("allen Ruh")) > 0
    with pytest.raises(DataError, match="character '世' has no token in") as caught:
        tokenizer.encode(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: give data.tokenizer=<tokenizer.json>"),
        (b"\xff", "cannot be read"),
        (b"{}", "is no tokenizer file of Hugging Face's"),
        (b"not json", "is no tokenizer file of Hugging Face's"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path: Path, content, message):
    pytest.importorskip("tokenizers")
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.text(tokenizer=path, batch_size=2)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_library_is_one_line_that_says_what_brings_it(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"pip install 'functorch_kit\[text\]'") as caught:
        Tokenizer.read(path)
    assert "\n" not in str(caught.value)
