"""Sequence to sequence with attention: Bahdanau, Cho and Bengio, 2015; Luong et al., 2015."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model

_INPUTS = {"source", "source_lengths", "target"}


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig:
    """A translator.

    Attributes:
        source_vocabulary: number of tokens that are read.
        target_vocabulary: number of tokens that are written.
        embedding: size of a token's vector.
        width: of the decoder; the encoder has half of it in each direction.
        dropout: rate behind embeddings, encoder and decoder; may be traced.

    Example:
        >>> Seq2SeqConfig().width
        256
    """

    source_vocabulary: int = 65
    target_vocabulary: int = 65
    embedding: int = 128
    width: int = 256
    dropout: float | jax.Array = 0.0


def seq2seq(config: Seq2SeqConfig) -> Model:
    """A bidirectional GRU reads; a GRU that begins where that one ended writes, and looks back.

    What the decoder knows after each token asks the encoder's outputs by attention; both together
    make the logits (Luong's global attention, with scaled products of learned projections).
    Parameters are addressed like ``encoder/forward/hidden/kernel`` and ``attention/query/kernel``.

    Args:
        config: see ``Seq2SeqConfig``.

    Returns:
        A Model from a dict of ``source`` (batch, read), ``target`` (batch, written), integers, and
        where sources are padded ``source_lengths`` (batch,), to logits (batch, written,
        target_vocabulary): those at t are for the target at t + 1.

    Raises:
        LayerError: an odd width; an input of other names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.seq2seq(models.Seq2SeqConfig(embedding=4, width=8))
        >>> x = {"source": jnp.array([[5, 2, 0]]), "target": jnp.array([[1, 7]])}
        >>> x |= {"source_lengths": jnp.array([2])}
        >>> params, state = model.init(jax.random.key(0), x)
        >>> model.apply(params, state, x)[0].shape
        (1, 2, 65)
    """
    if config.width % 2:
        raise LayerError(f"seq2seq: a width of {config.width} has no half: give an even one")
    half = config.width // 2
    drop = nn.dropout(config.dropout)

    def forward(part, x: Mapping[str, Integer[Array, "..."]]) -> Float[Array, "batch time logits"]:
        if not {"source", "target"} <= x.keys() <= _INPUTS:
            raise LayerError(
                f"seq2seq: the input is a dict of {', '.join(x)}: give source, target and, where "
                "sources are padded, source_lengths"
            )
        read = part("source_dropout", part("source", x["source"]))
        lengths = {"lengths": x["source_lengths"]} if "source_lengths" in x else {}
        encoded = part("encoder", nn.together(read, lengths))
        written = part("target_dropout", part("target", x["target"]))
        known = part("decoder", {"x": written, "carry": encoded["carry"]})
        memory = {"context": part("encoder_dropout", encoded["x"])}
        if lengths:
            places = jnp.arange(read.shape[1], dtype=x["source_lengths"].dtype)
            memory["mask"] = places[None] < x["source_lengths"][:, None]
        looked_up = part("attention", {"x": known, **memory})
        both = part("mixed", jnp.concatenate([known, looked_up], -1))
        return part("head", part("decoder_dropout", jnp.tanh(both)))

    return nn.graph(
        forward,
        source=nn.embedding(config.source_vocabulary, config.embedding),
        source_dropout=drop,
        encoder=nn.bidirectional(
            nn.gru(half, output="both"), nn.gru(half, output="both", reverse=True)
        ),
        encoder_dropout=drop,
        target=nn.embedding(config.target_vocabulary, config.embedding),
        target_dropout=drop,
        decoder=nn.gru(config.width),
        attention=nn.attention(1, use_bias=False),
        mixed=nn.dense(config.width),
        decoder_dropout=drop,
        head=nn.dense(config.target_vocabulary),
    )
