"""A decoder-only transformer: GPT-2 (Radford et al., 2019), as nanoGPT trains it, or Llama's kind.

Axes in the names of arrays: B batch, L positions, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from functorch_kit import nn
from functorch_kit.models.transformer import gated_mlp, pre_norm_block
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model, ModelState

_SCALE = 0.02
_BESIDE = ("segments", "positions")


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """A GPT; the defaults are nanoGPT's recipe for one CPU, on characters.

    Others by name are in ``GPT_SIZES``.

    Attributes:
        layers: number of blocks.
        heads: attention heads of a block; must divide the width.
        width: size of a position's vector.
        context: longest input.
        vocabulary: number of tokens.
        dropout: rate after the embedding, in the attention weights and after each half of a block;
            may be traced.
        use_bias: whether dense layers and layer norms have biases.
        is_tied: whether the head is the token embedding, transposed.
        exact_gelu: GELU by the error function as nanoGPT computes it, else by the tanh that GPT-2
            was trained with.
        norm: ``"layer"`` or ``"rms"``.
        position: ``"learned"``: a table of ``context`` rows; or ``"rotary"``: queries and keys
            are turned, and the input may be as long as memory allows.
        rotary_base: of the angles, where positions are rotary.
        mlp: ``"gelu"``; ``"relu_squared"`` (So et al., 2021); or ``"swiglu"``, which has three
            matrices instead of two.
        hidden: width inside the MLP; ``4 * width`` if None.
        kv_heads: heads that are read, fewer than ``heads`` for grouped queries; as many if None.
        window: how far back a position reads; all the way if None.
        qk_norm: whether queries and keys are RMS-normed by head, which keeps attention from
            saturating at high learning rates (Henry et al., 2020).
        ending: how the last matrix of each half of a block is drawn: ``"scaled"`` as GPT-2's, or
            ``"zero"``, with which every block begins as the identity (Zhang et al., 2019).
        is_repeated: whether one block is scanned over depth: compiled once, parameters stacked
            under ``blocks/…`` without the number (see ``nn.repeat``).
        epsilon: added by norms to the variance, or to the mean square; 1e-5 and 1e-6 if None.

    Example:
        >>> GPTConfig().width
        128
    """

    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    vocabulary: int = 65
    dropout: float | jax.Array = 0.0
    use_bias: bool = False
    is_tied: bool = True
    exact_gelu: bool = True
    norm: str = "layer"
    position: str = "learned"
    rotary_base: float = 10_000.0
    mlp: str = "gelu"
    hidden: int | None = None
    kv_heads: int | None = None
    window: int | None = None
    qk_norm: bool = False
    ending: str = "scaled"
    is_repeated: bool = False
    epsilon: float | None = None


_GPT2 = GPTConfig(context=1024, vocabulary=50257, use_bias=True, exact_gelu=False)
_LLAMA = GPTConfig(
    is_tied=False, norm="rms", position="rotary", mlp="swiglu", vocabulary=32000, epsilon=1e-5
)
_of = dataclasses.replace

GPT_SIZES = {
    "gpt_nano": GPTConfig(),
    "gpt2": _of(_GPT2, layers=12, heads=12, width=768),
    "gpt2_medium": _of(_GPT2, layers=24, heads=16, width=1024),
    "gpt2_large": _of(_GPT2, layers=36, heads=20, width=1280),
    "gpt2_xl": _of(_GPT2, layers=48, heads=25, width=1600),
    "llama_tiny": _of(
        _LLAMA, layers=22, heads=32, kv_heads=4, width=2048, hidden=5632, context=2048
    ),
    "llama2_7b": _of(_LLAMA, layers=32, heads=32, width=4096, hidden=11008, context=4096),
    "llama3_8b": _of(
        _LLAMA, layers=32, heads=32, kv_heads=8, width=4096, hidden=14336, context=8192,
        vocabulary=128256, rotary_base=500_000.0,
    ),
}  # fmt: skip
"""Published sizes by name: Karpathy's nanoGPT, OpenAI's GPT-2, TinyLlama, Meta's Llama."""


def gpt(config: GPTConfig) -> Model:
    """Token and position embedding, blocks of causal attention and MLP, layer norm, head.

    Parameters are addressed like ``blocks/3/attention/query/kernel``; they are drawn as nanoGPT
    draws them: normal with deviation 0.02, and ``0.02 / sqrt(2 layers)`` where a block's half ends.

    Args:
        config: see ``GPTConfig``.

    Returns:
        A Model from integer tokens (batch, length) to logits (batch, length, vocabulary), of which
        those at position l are for the token at l + 1. Where several documents stand in one row,
        the input is a dict of ``tokens``, ``segments`` (which document a token is of) and
        ``positions`` (its place there), all (batch, length); see ``data.Packed``.

    Raises:
        LayerError: heads that do not divide the width; a choice that there is none of; an input
            longer than the table of positions.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.gpt(models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5))
        >>> tokens = jnp.zeros((2, 3), jnp.int32)
        >>> params, state = model.init(jax.random.key(0), tokens)
        >>> model.apply(params, state, tokens)[0].shape
        (2, 3, 5)
    """
    return _network(config, None)


def gpt_decoder(config: GPTConfig, *, cache: int | None = None, only_last: bool = False) -> Model:
    """The same network over the same params, told new tokens only: keys and values are kept.

    Args:
        config: that of the ``gpt`` whose params it runs on.
        cache: positions that are kept; ``config.context`` if None. A token beyond gives NaN.
        only_last: whether logits are wanted for the last token of each row only, which spares the
            head's product for all others.

    Returns:
        A Model from tokens (batch, length) to logits (batch, length, vocabulary), or (batch,
        vocabulary) with ``only_last``. Its model_state is the cache: where each row stands, and
        keys and values by block. Prompts of different lengths are padded at their ends, and the
        input is a dict of ``tokens`` and of ``lengths`` (batch,), each at least 1: the next call
        overwrites the padding. The first call may give whole prompts, the others one token each,
        or several.

    Raises:
        LayerError: as ``gpt``; a cache longer than the table of positions.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> config = models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5, context=4)
        >>> params, _ = models.gpt(config).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        >>> decoder = models.gpt_decoder(config)
        >>> prompt, token = jnp.array([[3, 1, 4]]), jnp.array([[1]])
        >>> cache = jax.jit(lambda: decoder.init(jax.random.key(0), prompt)[1])()
        >>> logits, cache = decoder.apply(params, cache, prompt)
        >>> logits, cache = decoder.apply(params, cache, token)
        >>> logits.shape, cache["index"].tolist()
        ((1, 1, 5), [4])
    """
    slots = cache or config.context
    if config.position == "learned" and slots > config.context:
        raise LayerError(
            f"gpt_decoder: a cache of {slots} positions is longer than the table of "
            f"{config.context}: give {config.context} at most"
        )
    network = _network(config, slots, only_last)

    def init(key, x_spec):
        tokens, _ = _tokens_of(x_spec, ("lengths",))
        positions = jax.ShapeDtypeStruct(tokens.shape, jnp.int32)
        whole = {"tokens": tokens, "positions": positions}
        if only_last:
            whole["last"] = jax.ShapeDtypeStruct(tokens.shape[:1], jnp.int32)
        params, state = network.init(key, whole)
        return params, {"index": jnp.zeros(tokens.shape[:1], jnp.int32), **state}

    def apply(
        params,
        model_state,
        x: Integer[Array, "batch length"] | Mapping[str, Integer[Array, "..."]],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch *length vocabulary"], ModelState]:
        tokens, given = _tokens_of(x, ("lengths",))
        index, length = model_state["index"], tokens.shape[1]
        lengths = given.get("lengths", jnp.full_like(index, length)).astype(index.dtype)
        positions = index[:, None] + jnp.arange(length, dtype=index.dtype)[None]
        whole = {"tokens": tokens, "positions": positions}
        if only_last:
            whole["last"] = lengths - 1
        y, state = network.apply(params, model_state, whole, key=key, train=train)
        return y, {"index": index + lengths, **state}

    return Model(init, apply)


def _network(config: GPTConfig, cache: int | None, only_last: bool = False) -> Model:
    normal = jax.nn.initializers.normal(_SCALE)
    is_learned = _chosen(config, "position", "learned", "rotary") == "learned"
    parts = {
        "token": nn.embedding(config.vocabulary, config.width, embedding_init=normal),
        "dropout": nn.dropout(config.dropout),
        "blocks": _blocks(config, cache),
        "norm": _norm(config),
    }
    if is_learned:
        parts["position"] = nn.position_embedding(config.context, embedding_init=normal)
    if not config.is_tied:
        parts["head"] = nn.dense(config.vocabulary, use_bias=False, kernel_init=normal)

    def forward(
        part, x: Integer[Array, "batch length"] | Mapping[str, Integer[Array, "..."]]
    ) -> Float[Array, "batch *length vocabulary"]:
        tokens, given = _tokens_of(x, ("positions", "last") if only_last else _BESIDE)
        y = part("token", tokens)
        if is_learned:
            places = {name: given[name] for name in given if name == "positions"}
            y = part("position", nn.together(y, places))
        beside = {name: given[name] for name in given if name != "last"}
        y = part("blocks", nn.together(part("dropout", y), beside))
        y = part("norm", y)
        if only_last:
            y = jnp.take_along_axis(y, given["last"][:, None, None], axis=1, mode="fill")[:, 0]
        if not config.is_tied:
            return part("head", y)
        with nn.scope("head"):
            return nn.tag(nn.attend(part.params("token"), y))

    return nn.graph(forward, **parts)


def _tokens_of(x: Any, known: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    if not isinstance(x, Mapping):
        return x, {}
    given = {name: value for name, value in x.items() if name != "tokens"}
    if "tokens" not in x or given.keys() - set(known):
        raise LayerError(
            f"gpt: the input is a dict of {', '.join(x)}: give tokens and, beside them, "
            f"{' or '.join(known)}"
        )
    return x["tokens"], given


def _blocks(config: GPTConfig, cache: int | None) -> Model:
    normal = jax.nn.initializers.normal(_SCALE)
    # Each half adds to the same stream: 2 layers of them keep its variance at the first step.
    ending = jax.nn.initializers.normal(_SCALE / math.sqrt(2 * config.layers))
    if _chosen(config, "ending", "scaled", "zero") == "zero":
        ending = jax.nn.initializers.zeros
    attention = nn.attention(
        config.heads,
        kv_heads=config.kv_heads,
        causal=True,
        window=config.window,
        rotary=config.rotary_base if config.position == "rotary" else None,
        cache=cache,
        qk_norm=config.qk_norm,
        use_bias=config.use_bias,
        dropout=config.dropout,
        kernel_init=normal,
        out_init=ending,
    )
    hidden = config.hidden or 4 * config.width
    kind = _chosen(config, "mlp", "gelu", "relu_squared", "swiglu")
    if kind == "swiglu":
        mlp = gated_mlp(
            hidden, config.width, use_bias=config.use_bias, kernel_init=normal, down_init=ending
        )
    else:
        gelu = functools.partial(jax.nn.gelu, approximate=not config.exact_gelu)
        activation = nn.lambda_(gelu if kind == "gelu" else _relu_squared)
        mlp = nn.serial(
            up=nn.dense(hidden, use_bias=config.use_bias, kernel_init=normal),
            **{kind: activation},
            down=nn.dense(config.width, use_bias=config.use_bias, kernel_init=ending),
        )
    block = pre_norm_block(attention, mlp, norm=lambda: _norm(config), dropout=config.dropout)
    if config.is_repeated:
        return nn.repeat(block, config.layers)
    return nn.stack(*[block] * config.layers)


def _relu_squared(x: Array) -> Array:
    return jnp.square(jax.nn.relu(x))


def _norm(config: GPTConfig) -> Model:
    if _chosen(config, "norm", "layer", "rms") == "rms":
        return nn.rms_norm(epsilon=config.epsilon or 1e-6)
    return nn.layer_norm(epsilon=config.epsilon or 1e-5, use_bias=config.use_bias)


def _chosen(config: GPTConfig, field: str, *choices: str) -> str:
    value = getattr(config, field)
    if value not in choices:
        raise LayerError(f"gpt: {field} {value!r} is not {' or '.join(map(repr, choices))}")
    return value
