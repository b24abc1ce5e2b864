"""Tokens of several characters: a tokenizer file of Hugging Face's library ``tokenizers``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import first_line


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary of byte pairs, word pieces and the like, as its file describes it.

    The file is kept whole, so that what was trained with it can be decoded without it. Nothing is
    added at the ends of a text, and nothing is left out of one.

    Attributes:
        content: text of the file, JSON.
        name: of the file, for messages.

    Raises:
        DataError: the library is missing, or cannot read the text.

    Example:
        >>> import pytest
        >>> tokenizers = pytest.importorskip("tokenizers")
        >>> from tokenizers import decoders, models
        >>> pairs = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
        >>> made = tokenizers.Tokenizer(pairs)
        >>> made.decoder = decoders.Fuse()
        >>> tokenizer = Tokenizer(made.to_str())
        >>> len(tokenizer), tokenizer.encode("abba").tolist(), tokenizer.decode([2, 1, 0])
        (3, [2, 1, 0], 'abba')
    """

    content: str = dataclasses.field(repr=False)
    name: str = "tokenizer"

    def __post_init__(self) -> None:
        """Read it once, so that a file which is none is refused where it is named."""
        _ = self._made

    @classmethod
    def read(cls, path: str | Path) -> Tokenizer:
        """The tokenizer in a file, ``tokenizer.json`` as a rule.

        Raises:
            DataError: no such file, or none that the library reads.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(
                f"tokenizer file {str(path)!r} does not exist: give data.tokenizer=<tokenizer.json>"
            )
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"tokenizer file {str(path)!r} cannot be read ({first_line(error)})"
            ) from error
        return cls(content, repr(str(path)))

    def __len__(self) -> int:
        """Number of tokens: one more than the largest."""
        return self._size

    @property
    def sha256(self) -> str:
        """Of the content, in hexadecimal digits."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """A text as tokens (length,), int32.

        Raises:
            DataError: a character for which there is no token.
        """
        found = self._made.encode(text, add_special_tokens=False)
        tokens = np.array(found.ids, np.int32)
        spans = np.array(found.offsets, np.int64).reshape(-1, 2)[tokens != self._unknown]
        depth = np.zeros(len(text) + 1, np.int64)
        np.add.at(depth, spans[:, 0], 1)
        np.add.at(depth, spans[:, 1], -1)
        seen = np.cumsum(depth)[:-1] > 0
        # Space between words is what some leave to the decoder.
        if any(not text[place].isspace() for place in np.flatnonzero(~seen)):
            raise DataError(
                f"{self._without_token(text)} has no token in {self.name}: leave it out, or take a"
                " tokenizer of bytes, which has one for everything"
            )
        return tokens

    def decode(self, tokens: object) -> str:
        """Tokens (length,) as a text."""
        return self._made.decode(np.asarray(tokens, int).tolist(), skip_special_tokens=False)

    def to_dict(self) -> dict[str, Any]:
        """What ``vocabulary_from`` makes it of."""
        return {"kind": "tokenizer", "sha256": self.sha256, "content": self.content}

    def _without_token(self, text: str) -> str:
        """The first character to blame: what follows a dropped one has its place in the offsets."""
        for character in dict.fromkeys(text):
            tokens = self._made.encode(character, add_special_tokens=False).ids
            if not character.isspace() and set(tokens) <= {self._unknown}:
                return f"character {character!r}"
        return "a part of the text"

    @functools.cached_property
    def _made(self) -> Any:
        try:
            import tokenizers
        except ImportError as error:
            raise DataError(
                "tokenizer files need the library tokenizers, which is not installed:"
                " pip install 'functorch_kit[text]'"
            ) from error
        try:
            return tokenizers.Tokenizer.from_str(self.content)
        except Exception as error:  # the library raises no narrower type
            raise DataError(
                f"{self.name} is no tokenizer file of Hugging Face's ({first_line(error)})"
            ) from error

    @functools.cached_property
    def _size(self) -> int:
        return max(self._made.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @functools.cached_property
    def _unknown(self) -> int:
        name = getattr(self._made.model, "unk_token", None)
        token = None if name is None else self._made.token_to_id(name)
        return -1 if token is None else token
