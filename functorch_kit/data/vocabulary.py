"""What a run keeps of its vocabulary, and the vocabulary made of that again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.text import Characters
from functorch_kit.data.tokenizer import Tokenizer
from functorch_kit.data.tokens import TokenNumbers


@runtime_checkable
class Vocabulary(Protocol):
    """Text as tokens and back: ``Characters``, ``Tokenizer``, ``TokenNumbers``, or one's own.

    Example:
        >>> vocabulary: Vocabulary = Characters("ab")
        >>> vocabulary.decode(vocabulary.encode("abba"))
        'abba'
    """

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """A text as tokens (length,), int32; a DataError where it has none."""
        ...

    def decode(self, tokens: object) -> str:
        """Tokens (length,) as a text."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values that say all of it; ``kind`` says what it is."""
        ...


def vocabulary_from(values: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary that a ``to_dict`` tells of, as it stands in a run's ``vocabulary.json``.

    Args:
        values: plain values.

    Raises:
        DataError: they tell of none, or not of the one that was written.

    Example:
        >>> vocabulary_from(Characters("ab").to_dict())
        Characters(characters='ab')
    """
    match values:
        case {"kind": "characters", "characters": str(characters)}:
            return Characters(characters)
        case {"kind": "numbers", "size": int(size)}:
            return TokenNumbers(size)
        case {"kind": "tokenizer", "sha256": str(digest), "content": str(content)}:
            if hashlib.sha256(content.encode()).hexdigest() != digest:
                raise DataError("the tokenizer is damaged: its content does not have its SHA-256")
            return Tokenizer(content)
        case _:
            raise DataError(f"no vocabulary is kept as kind {values.get('kind')!r}")
