"""A GPT that goes on with prompts: keys and values are kept, many tokens come of one dispatch.

Axes in the names of arrays: B rows of the batch, W positions of the longest prompt, N tokens of one
dispatch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import program
from functorch_kit.generation.sampling import GenerationError, Sampling, draw, keys_of
from functorch_kit.models import GPTConfig, gpt_decoder
from functorch_kit.types import Params, spec_of

Prompts = Sequence[Sequence[int] | np.ndarray]
"""Tokens of each row."""

_SHORTEST = 8  # prompts are padded to a power of two: few lengths, few programs


class Piece(NamedTuple):
    """What one dispatch brought.

    Attributes:
        tokens: the new tokens of each row, (n,) int32; none of a row that has ended.
        reasons: why each row has ended: ``"length"``, ``"end"``, ``"context"``; None if it has not.
    """

    tokens: list[np.ndarray]
    reasons: list[str | None]


@dataclasses.dataclass(frozen=True)
class Generated:
    """How one row went on.

    Attributes:
        tokens: those that follow the prompt, (n,) int32, without the end token.
        reason: why there are no more: ``"length"``: as many as were asked for; ``"end"``: the end
            token came; ``"context"``: the model has read as much as it can.
    """

    tokens: np.ndarray
    reason: str


class Generator:
    """Goes on with prompts, as many rows at once as are given.

    Two programs are compiled for each size of batch and padded length of prompts: one reads the
    prompts, one generates any number of tokens up to ``chunk``. Temperature, ``top_p`` and seed are
    arguments of these; another ``top_k`` compiles again.

    A token is drawn with a key of (seed, number of the row, place in its text). So a row comes out
    the same whatever stands beside it, and goes on the same when its beginning is its prompt, as
    far as rounding lets it.

    Once the context is full, ``overflow`` says what happens. ``"slide"``: the last half of it is
    read again, from position 0, and generation goes on from there, so that a token is chosen by at
    least half a context; of a prompt that is longer than the context, its end is read. ``"stop"``:
    the row ends.

    Args:
        config: of the model.
        params: its parameters.
        chunk: most tokens of one dispatch, and so of one ``Piece``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> config = models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5, context=4)
        >>> params, _ = models.gpt(config).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        >>> generator = Generator(config, params)
        >>> rows = generator([[0, 1], [2]], tokens=6, seed=1)
        >>> [(len(row.tokens), row.reason) for row in rows]
        [(6, 'length'), (6, 'length')]
        >>> again = generator([[0, 1], [3]], tokens=6, seed=1)
        >>> bool((again[0].tokens == rows[0].tokens).all())
        True
    """

    def __init__(self, config: GPTConfig, params: Params, *, chunk: int = 32):
        if chunk < 1:
            raise GenerationError(f"chunk is {chunk}: give a whole number from 1 up")
        self.config, self.chunk = config, chunk
        self.params = jax.tree.map(jnp.asarray, params)
        self._decoder = gpt_decoder(config, only_last=True)
        self._programs: dict[Any, program.Program] = {}

    def __call__(self, prompts: Prompts, **options: Any) -> list[Generated]:
        """All that follows each prompt; arguments as of ``stream``."""
        tokens: list[list[np.ndarray]] = [[] for _ in prompts]
        reasons: list[str | None] = []
        for piece in self.stream(prompts, **options):
            for row, new in zip(tokens, piece.tokens, strict=True):
                row.append(new)
            reasons = piece.reasons
        return [
            Generated(np.concatenate(row), str(reason))
            for row, reason in zip(tokens, reasons, strict=True)
        ]

    def stream(
        self,
        prompts: Prompts,
        *,
        tokens: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        first: int = 0,
        end: int | None = None,
        overflow: str = "slide",
    ) -> Iterator[Piece]:
        """What follows each prompt, as it comes.

        Args:
            prompts: tokens of each row, one at least.
            tokens: how many to generate.
            sampling: how they are chosen.
            seed: another seed, other samples.
            first: number of the first row, of which samples that are made in several batches have
                their own.
            end: a token that ends its row.
            overflow: ``"slide"`` or ``"stop"``, see above.

        Yields:
            A ``Piece`` for each dispatch.

        Raises:
            GenerationError: prompts or settings that cannot be; logits that are NaN.
        """
        rows = [np.asarray(prompt, np.int64).reshape(-1) for prompt in prompts]
        self._check(rows, tokens, end, overflow)
        return self._pieces(rows, tokens, sampling or Sampling(), seed, first, end, overflow)

    def _pieces(
        self,
        rows: list[np.ndarray],
        tokens: int,
        sampling: Sampling,
        seed: int,
        first: int,
        end: int | None,
        overflow: str,
    ) -> Iterator[Piece]:
        slots, half = self.config.context, self.config.context // 2
        texts = [row.tolist() for row in rows]
        windows = [row[-slots:] for row in rows]
        index_B = np.array([len(window) for window in windows])
        longest = int(index_B.max())
        if overflow == "slide" and longest + tokens - 1 > slots:
            longest = max(longest, half)
        width = min(slots, max(_SHORTEST, 1 << (longest - 1).bit_length()))
        chosen: dict[str, Any] = {
            "seed": jax.random.key(seed),
            "number": (first + np.arange(len(rows))).astype(np.uint32),
            "temperature": np.float32(sampling.temperature),
        }
        if sampling.top_p is not None:
            chosen["top_p"] = np.float32(sampling.top_p)
        place_B = np.array([len(text) for text in texts], np.int32)
        pending = np.full(len(rows), -1, np.int32)  # a token that is drawn and not yet read
        cache, made = self._empty(len(rows)), 0
        reasons: list[str | None] = [None] * len(rows)

        def read(windows: list[np.ndarray]) -> tuple[Any, Any]:
            padded = np.zeros((len(rows), width), np.int32)
            for row, window in zip(padded, windows, strict=True):
                row[: len(window)] = window
            lengths = np.array([len(window) for window in windows], np.int32)
            arguments = (self.params, cache, pending, padded, lengths, place_B, chosen)
            run = self._program("read", self._read, arguments, sampling.top_k)
            return run(*arguments)

        pending, cache = read(windows)
        new_BxN = np.asarray(pending)[:, None]
        while True:
            made += new_BxN.shape[1]
            place_B = place_B + np.int32(new_BxN.shape[1])
            piece = _taken(new_BxN, reasons, end)
            for text, new in zip(texts, piece, strict=True):
                text.extend(new.tolist())
            full_B = index_B >= slots
            reasons = [
                reason
                or ("length" if made >= tokens else None)
                or ("context" if full and overflow == "stop" else None)
                for reason, full in zip(reasons, full_B, strict=True)
            ]
            yield Piece(piece, list(reasons))
            goes_on_B = np.array([reason is None for reason in reasons])
            if not goes_on_B.any():
                return
            full_B &= goes_on_B
            if full_B.any():
                # Each row reads its own half again: when, does not depend on the other rows.
                again = [
                    np.array(text[-half - 1 : -1] if full else [])
                    for text, full in zip(texts, full_B, strict=True)
                ]
                pending, cache = read(again)
                index_B[full_B] = half
            count = min(self.chunk, tokens - made, int((slots - index_B)[goes_on_B].min()))
            arguments = (self.params, cache, pending, np.int32(count), place_B, chosen)
            run = self._program("generate", self._generate, arguments, sampling.top_k)
            new_BxN, pending, cache = run(*arguments)
            new_BxN = np.asarray(new_BxN)[:, :count]
            index_B += count

    def _read(self, top_k, params, cache, pending_B, tokens_BxW, lengths_B, place_B, chosen):
        """Prompts, or halves of a context, into the cache; rows of length 0 stay as they are."""
        is_read_B = lengths_B > 0
        # Beyond the cache nothing is written, so that the other rows keep what they have.
        start_B = jnp.where(is_read_B, 0, self.config.context).astype(cache["index"].dtype)
        given = {"tokens": tokens_BxW, "lengths": jnp.maximum(lengths_B, 1)}
        logits_BxV, new = self._decoder.apply(params, {**cache, "index": start_B}, given)
        drawn_B = _drawn(top_k, logits_BxV, place_B, chosen)
        index_B = jnp.where(is_read_B, lengths_B.astype(start_B.dtype), cache["index"])
        # A token that waits is not drawn again.
        return jnp.where(pending_B < 0, drawn_B, pending_B), {**new, "index": index_B}

    def _generate(self, top_k, params, cache, pending_B, count, place_B, chosen):
        """Read the token that waits, draw the next one; ``count`` times."""
        new_NxB = jnp.full((self.chunk, pending_B.shape[0]), -1, jnp.int32)

        def body(step, carry):
            token_B, cache, new_NxB = carry
            logits_BxV, cache = self._decoder.apply(params, cache, token_B[:, None])
            token_B = _drawn(top_k, logits_BxV, place_B + step, chosen)
            return token_B, cache, new_NxB.at[step].set(token_B)

        pending_B, cache, new_NxB = jax.lax.fori_loop(
            jnp.int32(0), count, body, (pending_B, cache, new_NxB)
        )
        return new_NxB.T, pending_B, cache

    def _program(self, name: str, body: Any, arguments: Any, top_k: int | None) -> program.Program:
        given, structure = jax.tree.flatten(arguments[1:])  # the parameters are always the same
        made = (name, top_k, structure, *((leaf.shape, str(leaf.dtype)) for leaf in given))
        if made not in self._programs:

            def run(*arguments: Any) -> Any:
                return body(top_k, *arguments)

            self._programs[made] = program.compile(run, *spec_of(arguments), name=name, donate=(1,))
        return self._programs[made]

    def _empty(self, rows: int) -> Any:
        """A cache in the dtype of the parameters."""
        tokens = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
        shapes = jax.eval_shape(lambda: self._decoder.init(jax.random.key(0), tokens)[1])
        kinds = [leaf.dtype for leaf in jax.tree.leaves(self.params)]

        def zeros(leaf: Any) -> jax.Array:
            is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
            return jnp.zeros(leaf.shape, kinds[0] if is_float else leaf.dtype)

        return jax.tree.map(zeros, shapes)

    def _check(self, rows: list[np.ndarray], tokens: int, end: int | None, overflow: str) -> None:
        if not rows:
            raise GenerationError("there are no prompts: give one at least")
        if tokens < 1:
            raise GenerationError(f"tokens is {tokens}: give a whole number from 1 up")
        if overflow not in ("slide", "stop"):
            raise GenerationError(f"overflow is {overflow!r}: give 'slide' or 'stop'")
        size, slots = self.config.vocabulary, self.config.context
        if overflow == "slide" and slots < 2:
            raise GenerationError("a context of 1 has no half to slide on: give overflow='stop'")
        for number, row in enumerate(rows):
            if len(row) == 0:
                raise GenerationError(f"prompt {number} is empty: give a token at least")
            wrong = row[(row < 0) | (row >= size)]
            if len(wrong):
                raise GenerationError(
                    f"prompt {number} has token {wrong[0]}: the model knows 0 to {size - 1}"
                )
            if overflow == "stop" and len(row) > slots:
                raise GenerationError(
                    f"prompt {number} has {len(row)} tokens, and the model reads {slots}:"
                    " shorten it, or give overflow='slide'"
                )
        if end is not None and not 0 <= end < size:
            raise GenerationError(f"end is {end}: the model knows tokens 0 to {size - 1}")


def generate(
    config: GPTConfig, params: Params, prompts: Prompts, **options: Any
) -> list[Generated]:
    """What follows each prompt; to ask more than once, make a ``Generator``.

    Args:
        config: of the model.
        params: its parameters.
        prompts: tokens of each row, one at least.
        **options: ``tokens``, ``sampling``, ``seed``, ``first``, ``end`` and ``overflow``, as of
            ``Generator.stream``.

    Returns:
        A ``Generated`` for each prompt.

    Raises:
        GenerationError: prompts or settings that cannot be.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> from functorch_kit.generation import Sampling
        >>> config = models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5, context=4)
        >>> params, _ = models.gpt(config).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        >>> row, = generate(config, params, [[1, 2]], tokens=9, overflow="stop")
        >>> len(row.tokens), row.reason
        (3, 'context')
    """
    return Generator(config, params)(prompts, **options)


def _drawn(top_k: int | None, logits_BxV: Any, place_B: Any, chosen: dict[str, Any]) -> Any:
    keys = keys_of(chosen["seed"], chosen["number"], place_B)
    return draw(
        keys,
        logits_BxV,
        temperature=chosen["temperature"],
        top_k=top_k,
        top_p=chosen.get("top_p"),
    )


def _taken(new_BxN: np.ndarray, reasons: list[str | None], end: int | None) -> list[np.ndarray]:
    """The new tokens of rows that have not ended; ``reasons`` takes up which of them end here."""
    taken = []
    for number, new in enumerate(new_BxN):
        if reasons[number] is not None:
            taken.append(new[:0])
            continue
        ends = np.flatnonzero(new == end) if end is not None else []
        if len(ends):
            new, reasons[number] = new[: ends[0]], "end"
        if (new < 0).any():
            raise GenerationError(
                f"the logits of row {number} are NaN: the parameters hold a NaN or an infinity"
            )
        taken.append(new)
    return taken
