"""The character-level LSTM: Graves, 2013, and Karpathy's char-rnn, 2015."""

from __future__ import annotations

import dataclasses

import jax

from functorch_kit import nn
from functorch_kit.types import Model


@dataclasses.dataclass(frozen=True)
class CharRNNConfig:
    """A character-level LSTM; the defaults are char-rnn's.

    Attributes:
        layers: number of LSTMs.
        width: of each.
        vocabulary: number of characters.
        embedding: size of a character's vector; None for char-rnn's own: one element per character,
            1 where it is.
        dropout: rate behind each LSTM; may be traced.
        stateful: whether what the LSTMs know passes from call to call as model_state: for text that
            is read in pieces, and for generating.

    Example:
        >>> CharRNNConfig().width
        128
    """

    layers: int = 2
    width: int = 128
    vocabulary: int = 65
    embedding: int | None = None
    dropout: float | jax.Array = 0.0
    stateful: bool = False


def char_rnn(config: CharRNNConfig) -> Model:
    """Characters, LSTMs one above another, head; a stateful one runs on the same params.

    Parameters are addressed like ``layers/1/hidden/kernel``.

    Args:
        config: see ``CharRNNConfig``.

    Returns:
        A Model from integer characters (batch, time) to logits (batch, time, vocabulary), of which
        those at t are for the character at t + 1. A character outside the vocabulary gives NaN.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.char_rnn(models.CharRNNConfig(width=8, vocabulary=5))
        >>> text = jnp.array([[0, 3, 1]])
        >>> params, state = model.init(jax.random.key(0), text)
        >>> model.apply(params, state, text)[0].shape
        (1, 3, 5)
    """
    characters = (
        nn.one_hot(config.vocabulary)
        if config.embedding is None
        else nn.embedding(config.vocabulary, config.embedding)
    )
    layer = nn.lstm(config.width, dropout=config.dropout, stateful=config.stateful)
    return nn.serial(
        character=characters,
        layers=nn.stack(*[layer] * config.layers),
        head=nn.dense(config.vocabulary),
    )
