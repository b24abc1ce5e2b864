"""Token bins: long sequences of 16-bit numbers, as nanoGPT writes them, memory-mapped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.data.pipeline import Data, DataError
from functorch_kit.data.source import first_line
from functorch_kit.data.text import held_out_windows, training_windows

_DTYPES = ("uint16", "uint32")
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class TokenNumbers:
    """A vocabulary of which only the size is known: tokens are written as their numbers.

    Attributes:
        size: number of tokens.

    Example:
        >>> numbers = TokenNumbers(50257)
        >>> len(numbers), numbers.decode([15496, 995]), numbers.encode("15496 995").tolist()
        (50257, '15496 995', [15496, 995])
    """

    size: int

    def __len__(self) -> int:
        """Number of tokens."""
        return self.size

    def encode(self, text: str) -> np.ndarray:
        """Numbers written in a text, separated by spaces, as tokens (length,), int32.

        Raises:
            DataError: something that is no number of a token.
        """
        for word in text.split():
            if not word.isdecimal() or int(word) >= self.size:
                raise DataError(f"{word!r} is no token: give numbers from 0 to {self.size - 1}")
        return np.array([int(word) for word in text.split()], np.int32)

    def decode(self, tokens: object) -> str:
        """Tokens (length,) as their numbers."""
        return " ".join(map(str, np.asarray(tokens, int).tolist()))

    def to_dict(self) -> dict[str, Any]:
        """What ``vocabulary_from`` makes it of."""
        return {"kind": "numbers", "size": self.size}


def token_bins(
    path: str | Path,
    *,
    batch_size: int,
    seed: int = 0,
    context: int = 64,
    validation: float | None = None,
    vocabulary: int | None = None,
    dtype: str = "uint16",
) -> Data:
    """Windows of tokens in files, each to be continued: ``y`` is ``x`` one token on.

    The files are memory-mapped; those of up to 1 GB live on the device. Every window of the
    training part comes once before any comes again.

    Args:
        path: a folder with ``train.bin`` and ``val.bin``, as nanoGPT's scripts prepare it, or one
            file, of whose end a share validates.
        batch_size: windows in a training batch.
        seed: of the training order.
        context: tokens in a window.
        validation: share at the end of one file that is held out; 0 for none. None: 0.1, or what
            ``val.bin`` holds.
        vocabulary: number of tokens that there are; None: as many as the files show.
        dtype: of the tokens in the files: ``uint16`` or ``uint32``, little-endian.

    Returns:
        Data with ``x`` and ``y`` (batch, context) int32, and a ``vocabulary`` of numbers.

    Raises:
        DataError: no such file, bytes that are no whole tokens, a token beyond the vocabulary, or
            too few of them.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("train.bin", "val.bin"):
        ...     np.arange(100, dtype=np.uint16).tofile(folder / name)
        >>> parts = token_bins(folder, batch_size=4, context=8)
        >>> batch = parts.train(0)
        >>> batch["x"].shape, bool((batch["y"] == batch["x"] + 1).all()), len(parts.vocabulary)
        ((4, 8), True, 100)
    """
    path = Path(path)
    if context < 1 or batch_size < 1:
        raise DataError(
            f"context is {context} and batch_size {batch_size}: give whole numbers from 1 up"
        )
    if validation is not None and not 0 <= validation < 1:
        raise DataError(
            f"validation is {validation}: give a share from 0 up to but not including 1"
        )
    train = _mapped(path / "train.bin" if path.is_dir() else path, dtype)
    if (path / "val.bin").is_file():
        if validation is not None:
            raise DataError(f"{str(path)!r} holds a val.bin: leave data.validation at null")
        held_out = _mapped(path / "val.bin", dtype)
    else:
        share = 0.1 if validation is None else validation
        cut = len(train) - int(np.ceil(len(train) * share))
        train, held_out = train[:cut], train[cut:] if share else None
    if len(train) <= context:
        raise DataError(
            f"token file {str(path)!r} has {len(train)} tokens to train on, but a window takes"
            f" {context + 1}: give a smaller data.context"
        )
    if held_out is not None and len(held_out) < 2:
        raise DataError(
            f"token file {str(path)!r} has {len(held_out)} tokens to validate on, but it takes 2:"
            " give a larger data.validation, or 0"
        )
    parts = [part for part in (train, held_out) if part is not None]
    largest = max(_largest(part) for part in parts)
    if vocabulary is not None and largest >= vocabulary:
        raise DataError(
            f"token file {str(path)!r} holds token {largest}, but data.vocabulary is {vocabulary}:"
            f" give {largest + 1} or more"
        )
    return Data(
        training_windows(train, context, batch_size, seed),
        None if held_out is None else held_out_windows(held_out, context),
        vocabulary=TokenNumbers(largest + 1 if vocabulary is None else vocabulary),
        name=path.stem or "tokens",
    )


def _mapped(path: Path, dtype: str) -> np.ndarray:
    if dtype not in _DTYPES:
        raise DataError(f"dtype is {dtype!r}: give one of {', '.join(_DTYPES)}")
    if not path.is_file():
        raise DataError(
            f"token file {str(path)!r} does not exist: give data.path=<folder with train.bin>"
        )
    size, item = path.stat().st_size, np.dtype(dtype).itemsize
    if size == 0 or size % item:
        raise DataError(
            f"token file {str(path)!r} has {size} bytes, which are no whole tokens of {item}:"
            " write it again"
        )
    try:
        return np.asarray(np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r"))
    except (OSError, ValueError) as error:
        raise DataError(f"token file {str(path)!r} cannot be read ({first_line(error)})") from error


def _largest(tokens: np.ndarray) -> int:
    """By pieces, so that a file larger than memory is not drawn into it."""
    starts = range(0, len(tokens), _CHUNK)
    largest = max(int(tokens[start : start + _CHUNK].max()) for start in starts)
    if largest >= 2**31 - 1:
        raise DataError(f"token {largest} does not fit in 32 bits: is the dtype of the file right?")
    return largest
