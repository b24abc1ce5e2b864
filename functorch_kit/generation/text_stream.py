"""Tokens that come one after another, as text that comes bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """What new tokens add to a text, once it can be said.

    A character may take several tokens, each of some of its bytes: it is held back until it is
    whole.

    Args:
        decode: from all tokens to their text.
        tokens: those that came before.

    Example:
        >>> def decode(tokens):
        ...     return bytes(tokens).decode(errors="replace")
        >>> stream = TextStream(decode)
        >>> [stream.add([byte]) for byte in "aé".encode()], stream.rest()
        (['a', '', 'é'], '')
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], tokens: Sequence[int] = ()):
        self._decode = decode
        self._tokens = list(tokens)
        self._said = len(decode(self._tokens)) if self._tokens else 0

    def add(self, tokens: Sequence[int]) -> str:
        """The text that these tokens add, but for an unfinished character at its end."""
        self._tokens += list(tokens)
        return self._new(self._decode(self._tokens).rstrip(_UNFINISHED))

    def rest(self) -> str:
        """What was held back, at the end of it all."""
        return self._new(self._decode(self._tokens))

    def _new(self, text: str) -> str:
        new = text[self._said :]
        self._said = max(self._said, len(text))
        return new
