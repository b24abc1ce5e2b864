"""Text by character or by token: any UTF-8 file, or prose that comes with Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.data.order import Sequential, Shuffled
from functorch_kit.data.pipeline import Data, DataError
from functorch_kit.data.tokenizer import Tokenizer
from functorch_kit.data.windows import Windows

_RESIDENT_BYTES = 1 << 30
_EVALUATION_TOKENS = 8192


@dataclasses.dataclass(frozen=True)
class Characters:
    """Characters as tokens: the number of a character is its place in ``characters``.

    Attributes:
        characters: each once, sorted by code point.

    Example:
        >>> letters = Characters.of("banana")
        >>> letters.characters, letters.encode("nab").tolist(), letters.decode([1, 0, 2])
        ('abn', [2, 0, 1], 'ban')
    """

    characters: str

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters that a text is made of."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """A text as tokens (length,), int32.

        Raises:
            DataError: a character that is none of these.
        """
        codes, known = _codes(text), _codes(self.characters)
        place = np.searchsorted(known, codes)
        wrong = np.flatnonzero(known[np.minimum(place, len(known) - 1)] != codes)
        if len(wrong):
            raise DataError(
                f"character {text[wrong[0]]!r} is not in the vocabulary of {len(self)}:"
                " leave it out, or train on a text that has it"
            )
        return place.astype(np.int32)

    def decode(self, tokens: object) -> str:
        """Tokens (length,) as a text."""
        return "".join(self.characters[token] for token in np.asarray(tokens, int).tolist())

    def to_dict(self) -> dict[str, Any]:
        """What ``vocabulary_from`` makes it of."""
        return {"kind": "characters", "characters": self.characters}


def text(
    path: str | Path | None = None,
    *,
    batch_size: int,
    seed: int = 0,
    context: int = 64,
    validation: float = 0.1,
    tokenizer: str | Path | None = None,
) -> Data:
    """A text, to be continued: ``y`` is ``x`` one token on, a character unless a file says more.

    The last part of the text validates, in windows that do not overlap, each token once; windows of
    the rest train, one at every position, each once before any comes again. There is no test part.

    Args:
        path: a UTF-8 file; without one, the prose of ``pydoc_data.topics``, which every Python
            carries (its wording changes from version to version).
        batch_size: windows in a training batch.
        seed: of the training order.
        context: tokens in a window.
        validation: share of the text, at its end, that is held out; 0 for none.
        tokenizer: a file of Hugging Face's ``tokenizers``; see ``Tokenizer``. None: every character
            is a token.

    Returns:
        Data with ``x`` and ``y`` (batch, context) int32, and a ``vocabulary`` that encodes and
        decodes.

    Raises:
        DataError: no such file, not UTF-8, too short for a window, or a share outside [0, 1); a
            tokenizer that cannot be used, or that has no token for a character.

    Example:
        >>> from functorch_kit import data
        >>> prose = data.text(batch_size=4, context=16)
        >>> batch = prose.train(0)
        >>> batch["x"].shape, bool((batch["x"][:, 1:] == batch["y"][:, :-1]).all())
        ((4, 16), True)
        >>> prose.vocabulary.decode(prose.vocabulary.encode("to be"))
        'to be'
    """
    if context < 1 or batch_size < 1:
        raise DataError(
            f"context is {context} and batch_size {batch_size}: give whole numbers from 1 up"
        )
    if not 0 <= validation < 1:
        raise DataError(
            f"validation is {validation}: give a share from 0 up to but not including 1"
        )
    written = _prose() if path is None else _read(Path(path))
    name = "text" if path is None else Path(path).stem
    what = "the text" if path is None else f"text file {str(path)!r}"
    if len(written) == 0:
        raise DataError(f"{what} is empty: give data.path=<a UTF-8 file>")
    vocabulary = Characters.of(written) if tokenizer is None else Tokenizer.read(tokenizer)
    unit = "characters" if tokenizer is None else "tokens"
    tokens = vocabulary.encode(written)
    cut = int(len(tokens) * (1 - validation))
    if cut <= context:
        raise DataError(
            f"{what} leaves {cut} {unit} to train on, but a window takes {context + 1}:"
            " give a smaller data.context or a longer text"
        )
    if validation and len(tokens) - cut < 2:
        raise DataError(
            f"{what} leaves {len(tokens) - cut} {unit} to validate on, but it takes 2:"
            " give a larger data.validation, or 0"
        )
    held_out = held_out_windows(tokens[cut:], context) if validation else None
    return Data(
        training_windows(tokens[:cut], context, batch_size, seed),
        held_out,
        vocabulary=vocabulary,
        name=name,
    )


def training_windows(tokens: np.ndarray, context: int, batch_size: int, seed: int) -> Windows:
    """Every window of a sequence, shuffled, each once before any comes again.

    Args:
        tokens: the sequence (n,), integers; they live on the device up to 1 GB.
        context: tokens in a window.
        batch_size: windows in a batch.
        seed: of the order.

    Example:
        >>> training_windows(np.arange(9, dtype=np.int32), 3, 2, seed=0).order.count
        6
    """
    order = Shuffled(len(tokens) - context, batch_size, seed)
    return Windows(tokens, context, order, resident=tokens.nbytes <= _RESIDENT_BYTES)


def held_out_windows(tokens: np.ndarray, context: int) -> Windows:
    """Windows side by side, so that every token but the first is predicted once.

    Args:
        tokens: the sequence (n,), integers.
        context: tokens in a window.

    Example:
        >>> windows = held_out_windows(np.arange(9, dtype=np.int32), 3)
        >>> float(windows(0)["weight"].sum())
        8.0
    """
    count = -(-(len(tokens) - 1) // context)
    batch_size = min(count, max(1, _EVALUATION_TOKENS // context))
    order = Sequential(count, batch_size)
    return Windows(tokens, context, order, stride=context, resident=False)


def _read(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"text file {str(path)!r} does not exist: give data.path=<a UTF-8 file>")
    try:
        return path.read_bytes().decode("utf-8")  # bytes: line ends stay what they are
    except UnicodeDecodeError as error:
        raise DataError(
            f"text file {str(path)!r} is not UTF-8 (byte {error.start}): save it in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(
            f"text file {str(path)!r} cannot be read ({error.strerror}): give one that can"
        ) from error


def _prose() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
